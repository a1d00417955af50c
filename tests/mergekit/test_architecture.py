"""Layers read off tensor names, for the families that people merge."""

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import (
    Architecture,
    Section,
    head_and_embeddings,
    is_vocabulary,
    read_architecture,
    with_modules,
)

# prefix of layers, a tensor in each, tensors before and after, key of the layer count
FAMILIES = {
    "llama": (
        "model.layers", "self_attn.q_proj.weight", ["model.embed_tokens.weight"],
        ["model.norm.weight", "lm_head.weight"], "num_hidden_layers",
    ),
    "gpt2": (
        "transformer.h", "attn.c_attn.weight", ["transformer.wte.weight", "transformer.wpe.weight"],
        ["transformer.ln_f.weight"], "n_layer",
    ),
    "bare gpt2": ("h", "ln_1.bias", ["wte.weight", "wpe.weight"], ["ln_f.bias"], "n_layer"),
    "gpt-neox": (
        "gpt_neox.layers", "attention.dense.bias", ["gpt_neox.embed_in.weight"],
        ["gpt_neox.final_layer_norm.bias", "embed_out.weight"], "num_hidden_layers",
    ),
    "bert": (
        "bert.encoder.layer", "attention.output.LayerNorm.bias",
        ["bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.weight",
         "bert.embeddings.position_embeddings.weight"],
        ["bert.pooler.dense.weight", "cls.predictions.transform.dense.weight"], "num_hidden_layers",
    ),
    "distilbert": (
        "distilbert.transformer.layer", "ffn.lin1.weight",
        ["distilbert.embeddings.word_embeddings.weight"],
        ["vocab_projector.bias", "vocab_layer_norm.weight"], "n_layers",
    ),
    "falcon": (
        "transformer.h", "mlp.dense_h_to_4h.weight", ["transformer.word_embeddings.weight"],
        ["transformer.ln_f.weight", "lm_head.weight"], "num_hidden_layers",
    ),
    "chatglm": (
        "transformer.encoder.layers", "mlp.dense_h_to_4h.weight",
        ["transformer.embedding.word_embeddings.weight", "transformer.rotary_pos_emb.inv_freq"],
        ["transformer.encoder.final_layernorm.weight", "transformer.output_layer.weight"],
        "num_layers",
    ),
    "mamba": (
        "backbone.layers", "mixer.A_log", ["backbone.embeddings.weight"],
        ["backbone.norm_f.weight"], "num_hidden_layers",
    ),
    "internlm2": (
        "model.layers", "feed_forward.w1.weight", ["model.tok_embeddings.weight"],
        ["model.norm.weight", "output.weight"], "num_hidden_layers",
    ),
    "mixtral": (
        "model.layers", "block_sparse_moe.experts.3.w1.weight", ["model.embed_tokens.weight"],
        ["lm_head.weight"], "num_hidden_layers",
    ),
    "classifier": (
        "model.layers", "mlp.up_proj.weight", ["model.embed_tokens.weight"],
        ["model.norm.weight", "score.weight"], "num_hidden_layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    prefix, key, before, after, count = FAMILIES[family]
    names = [*before, *(f"{prefix}.{layer}.{key}" for layer in range(12)), *after]
    found = read_architecture(names, {count: 12}, family)
    assert found.modules == ("default",)
    assert found.layers("default") == 12
    assert found.stacks["default"].name(3, key) == f"{prefix}.3.{key}"
    for layer in range(12):
        spot = found.spots[f"{prefix}.{layer}.{key}"]
        assert (spot.section, spot.layer, spot.key) == (Section.LAYER, layer, key)
    assert {found.spots[name].section for name in before} == {Section.BEFORE}
    assert {found.spots[name].section for name in after} == {Section.AFTER}
    with pytest.raises(MergeInputError, match=f"'{family}' says 13 layers, its tensors .* have 12"):
        read_architecture(names, {count: 13}, family)


def modules(found: Architecture) -> dict[str, str]:
    return {name: spot.module for name, spot in found.spots.items()}


def test_models_of_several_stacks() -> None:
    text, vision = "model.language_model.layers", "model.visual.blocks"
    found = read_architecture(
        [
            "lm_head.weight",
            "model.language_model.embed_tokens.weight",
            *(f"{text}.{layer}.mlp.up_proj.weight" for layer in range(6)),
            "model.language_model.norm.weight",
            *(f"{vision}.{layer}.mlp.fc1.weight" for layer in range(3)),
            "model.visual.merger.mlp.0.weight",
            "model.visual.merger.mlp.2.weight",
            "model.visual.patch_embed.proj.weight",
            "mm_projector.0.weight",
            "mm_projector.2.weight",
        ],
        {"text_config": {"num_hidden_layers": 6}, "vision_config": {"depth": 3}},
        "qwen",
    )
    assert {name: found.layers(name) for name in found.modules} == {
        "text_decoder": 6, "vision_tower": 3, "mm_projector": 0,
    }  # fmt: skip
    held = modules(found)
    assert held["lm_head.weight"] == held["model.language_model.norm.weight"] == "text_decoder"
    assert held["model.visual.merger.mlp.2.weight"] == "vision_tower"
    assert found.spots["model.visual.merger.mlp.2.weight"].section is Section.AFTER


def test_a_projector_and_a_norm_are_modules_where_a_recipe_names_them() -> None:
    found = read_architecture(
        [
            "model.embed_tokens.weight",
            *(f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4)),
            "model.norm.weight",
            "model.connector.weight",
            *(f"visual.blocks.{layer}.mlp.fc1.weight" for layer in range(2)),
            "visual.merger.ln_q.weight",
            "lm_head.weight",
        ],
        {"num_hidden_layers": 4},
        "qwen2-vl",
    )
    # As transformers 5 saves it: nothing but the name says that the norm is the decoder's.
    assert found.modules == ("text_decoder", "connector", "vision_tower")
    assert modules(found)["model.norm.weight"] == "text_decoder"
    assert modules(found)["visual.merger.ln_q.weight"] == "vision_tower"
    split = with_modules(found, ["vision_tower", "multi_modal_projector", "norm"])
    assert modules(split)["visual.merger.ln_q.weight"] == "multi_modal_projector"
    assert modules(split)["model.norm.weight"] == "norm"
    assert modules(split)["lm_head.weight"] == "text_decoder"
    assert split.stacks == found.stacks
    assert with_modules(found, found.modules) == found


def test_encoders_and_decoders() -> None:
    found = read_architecture(
        [
            "shared.weight",
            *(f"encoder.block.{n}.layer.0.SelfAttention.q.weight" for n in range(2)),
            "encoder.final_layer_norm.weight",
            *(f"decoder.block.{n}.layer.1.EncDecAttention.q.weight" for n in range(3)),
        ],
        {"num_layers": 2},
        "t5",
    )
    assert {name: stack.layers for name, stack in found.stacks.items()} == {
        "encoder": 2, "decoder": 3,
    }  # fmt: skip
    assert found.spots["encoder.block.1.layer.0.SelfAttention.q.weight"].layer == 1


def test_shared_embeddings_are_the_decoders_in_whatever_order_files_are() -> None:
    names = ["encoder.block.0.q.weight", "shared.weight", "decoder.block.0.q.weight"]
    for order in (names, sorted(names)):
        assert modules(read_architecture(order, None, "t5"))["shared.weight"] == "decoder"


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("model.encoder.conv1.weight", Section.BEFORE),
        ("model.encoder.layer_norm.weight", Section.AFTER),
        ("vision_model.pre_layrnorm.bias", Section.BEFORE),
        ("vision_model.post_layernorm.bias", Section.AFTER),
        ("visual.merger.mlp.0.weight", Section.AFTER),
        ("cls.predictions.transform.dense.weight", Section.AFTER),
    ],
)
def test_what_comes_before_the_layers(name: str, section: Section) -> None:
    assert read_architecture([name], None, "x").spots[name].section is section


def test_numbered_things_that_are_no_layers() -> None:
    names = ["classifier.0.weight", "classifier.3.weight", "unet.down.1.weight", "x"]
    found = read_architecture(names, None, "odd")
    assert (found.modules, dict(found.stacks)) == (("default",), {})
    gap = ["model.layers.0.w", "model.layers.2.w"]
    assert not read_architecture(gap, None, "odd").stacks
    long = [f"a.{'9' * 400}.b", "a." * 3000 + "1.b", ".1.b", "layers..1.b"]
    assert set(read_architecture(long, None, "odd").spots) == set(long)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["lm_head.weight", "wte.weight"], ("lm_head.weight", "wte.weight")),
        (["transformer.wte.weight"], (None, "transformer.wte.weight")),
        (["embed_out.weight", "embed_in.weight"], ("embed_out.weight", "embed_in.weight")),
        (["language_model.lm_head.weight"], ("language_model.lm_head.weight", None)),
    ],
)  # fmt: skip
def test_heads(names: list[str], expected: tuple[str | None, str | None]) -> None:
    assert head_and_embeddings(read_architecture(names, None, "x")) == expected
    assert all(is_vocabulary(name) for name in names)
    assert not is_vocabulary("transformer.wpe.weight")


def test_ties() -> None:
    for config, tied in (
        (None, True),
        ({"num_hidden_layers": 1}, True),
        ({"tie_word_embeddings": False}, False),
        ({"text_config": {"tie_word_embeddings": False}}, False),
        ({"model_type": "gemma"}, True),
        ({"model_type": "mistral"}, False),
        ({"model_type": "qwen2", "tie_word_embeddings": True}, True),
    ):
        assert read_architecture(["x"], config, "x").tied is tied
