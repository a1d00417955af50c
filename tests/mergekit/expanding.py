"""How tests write recipes of toy models, and what they ask of what those come to."""

from mergepipe.planner.lines import Line
from mergepipe.planner.mergekit.expanded import Expanded
from tests.mergekit.toys import Toys


def line(merge: Expanded, name: str) -> Line:
    return next(one for one in merge.written if one.name == name)


def q(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.q_proj.weight"


def weights(merge: Expanded, name: str, key: str = "weight") -> list[object]:
    return [own[key] for own in line(merge, name).settings.experts]


def sources(toys: Toys, merge: Expanded, name: str) -> list[str]:
    return [toys.owner(one.source) for one in line(merge, name).inputs]


def models(*entries: str, method: str = "linear", more: str = "") -> str:
    listed = "".join(f"- {entry}\n" for entry in entries)
    return f"merge_method: {method}\nmodels:\n{listed}{more}"


GEMMA = {
    "language_model.model.embed_tokens.weight": (32, 8),
    **{f"language_model.model.layers.{n}.mlp.up_proj.weight": (16, 8) for n in range(2)},
    "language_model.model.norm.weight": (8,),
    "multi_modal_projector.mm_input_projection_weight": (8, 8),
    "vision_tower.vision_model.embeddings.patch_embedding.weight": (8, 3),
    **{f"vision_tower.vision_model.encoder.layers.{n}.mlp.fc1.weight": (8, 8) for n in range(3)},
    "vision_tower.vision_model.post_layernorm.weight": (8,),
}
GEMMA_CONFIG = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 2}}
