"""Names in memory and on disk: what transformers itself loads into one weight is one weight."""

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from mergepipe.formats.weight_names import Spelling, other_layout, same_weights

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
VISION = {**SMALL, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4}
TEXT = {**SMALL, "num_hidden_layers": 1, "num_key_value_heads": 1, "vocab_size": 30}


def vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**VISION))


def beit() -> Any:
    from transformers import BeitConfig, BeitForImageClassification

    return BeitForImageClassification(BeitConfig(**VISION))


def dinov2() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    settings = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    return Dinov2Model(Dinov2Config(**settings))


def gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**TEXT, "head_dim": 8}, vision_config=VISION, mm_tokens_per_image=4,
            image_token_index=29,
        )
    )  # fmt: skip


def llava() -> Any:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vision = CLIPVisionConfig(**VISION)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=vision, image_token_index=29)
    )


def qwen2_vl() -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = {
        "depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4,
        "mlp_ratio": 2,
    }  # fmt: skip
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={**TEXT, "rope_parameters": rope}, vision_config=vision,
            image_token_id=26, video_token_id=27, vision_start_token_id=28, vision_end_token_id=29,
        )
    )  # fmt: skip


def gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, num_hidden_layers=1, vocab_size=30))


def saved(model: Any, directory: Path) -> list[str]:
    model.save_pretrained(directory)
    with safe_open(directory / "model.safetensors", "np") as file:
        return list(file.keys())


@pytest.mark.parametrize("make", [vit, beit, dinov2, gemma3, llava, qwen2_vl, gpt_neox])
def test_each_weight_in_memory_is_found_on_disk(make: Any, tmp_path: Path) -> None:
    model = make()
    on_disk = saved(model, tmp_path)
    in_memory = [name for name, _ in model.named_parameters()]
    spelling = Spelling(on_disk)
    found = {name: spelling.of(name) for name in in_memory}
    tied = {"lm_head.weight"} if "lm_head.weight" in found and len(in_memory) > len(on_disk) else {}
    assert [name for name, own in found.items() if own is None and name not in tied] == []
    assert len(set(found.values()) - {None}) == len(on_disk)
    differing = same_weights(in_memory, on_disk)
    assert {name: own for name, own in found.items() if own not in (name, None)} == differing


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("module.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("_orig_mod.lm_head.weight", "lm_head.weight"),
        ("transformer.wte.weight", "wte.weight"),
        ("bert.encoder.layer.0.output.dense.weight", "encoder.layer.0.output.dense.weight"),
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("roberta.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
        ("model.layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"),
        ("distilbert.transformer.layer.0.ffn.lin1.weight", "transformer.layer.0.ffn.lin1.weight"),
        ("visual.blocks.0.attn.qkv.weight", "model.visual.blocks.0.attn.qkv.weight"),
        ("model.layers.0.a.weight", "model.language_model.layers.0.a.weight"),
        ("language_model.model.layers.0.a.weight", "layers.0.a.weight"),
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("lm_head.decoder.bias", "lm_head.bias"),
    ],
)
def test_versions_and_prefixes(one: str, other: str) -> None:
    assert same_weights([one, "x.weight"], [other, "x.weight"]) == {one: other}
    assert same_weights([other], [one]) == {other: one}
    assert Spelling([other]).of(one) == other


def test_what_could_be_two_weights_is_none() -> None:
    two = ["model.layers.0.a.weight", "transformer.layers.0.a.weight"]
    assert same_weights(["layers.0.a.weight"], two) == {}
    assert Spelling(two).of("layers.0.a.weight") is None
    assert Spelling(two).of(two[1]) == two[1]


def test_a_tower_is_not_the_model() -> None:
    tower = ["vision_tower.layers.0.a.weight"]
    assert same_weights(tower, ["layers.0.a.weight"]) == {}
    assert Spelling(["layers.0.a.weight"]).of(tower[0]) is None


@pytest.mark.parametrize(
    ("apart", "fused"),
    [
        ("model.layers.0.mlp.experts.3.up_proj.weight", "model.layers.0.mlp.experts.gate_up_proj"),
        ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.qkv_proj.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"),
    ],
)
def test_other_layouts_are_told_apart(apart: str, fused: str) -> None:
    found = other_layout([apart], [fused])
    assert found is not None
    assert not found[1]
    assert other_layout([fused], [apart]) == (found[0], True)
    assert other_layout([apart], [apart]) is None
