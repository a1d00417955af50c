"""Stacks of layers of many architectures, merged by a recipe and loaded by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.mergekit.test_command import Mp, models, mp, recipe

__all__ = ["models", "mp"]
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "num_hidden_layers": 4,
    "pad_token_id": 0,
}
DEEPSEEK = {
    **{key: value for key, value in SMALL.items() if key != "head_dim"},
    "moe_intermediate_size": 8,
    "n_routed_experts": 2,
    "n_shared_experts": 1,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 2,
    "num_nextn_predict_layers": 1,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "vocab_size": 40,
    "max_source_positions": 10,
    "max_target_positions": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 3,
    "num_heads": 2,
    "vocab_size": 40,
}


def saved(directory: Path, kind: str, settings: dict[str, Any], auto: Any) -> Path:
    """A tiny model with random weights."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **settings)
    auto.from_config(config).save_pretrained(directory)
    return directory


def slices(*ranges: tuple[int, int], model: str = "one") -> str:
    lines = (f"- sources: [{{model: {model}, layer_range: [{a}, {b}]}}]" for a, b in ranges)
    return "\n".join(lines)


def stack(*ranges: tuple[int, int]) -> str:
    return "merge_method: passthrough\nslices:\n" + slices(*ranges)


def modules(**parts: str) -> str:
    lines = ["merge_method: passthrough", "modules:"]
    for name, part in parts.items():
        lines += [f"  {name}:", "    slices:", *("    " + line for line in part.splitlines())]
    return "\n".join(lines)


def loaded(directory: Path, auto: Any) -> Any:
    """The result, and that nothing of it was missing or too much."""
    model, told = auto.from_pretrained(directory, output_loading_info=True)
    assert not any(told.values()), told
    return model


CAUSAL = transformers.AutoModelForCausalLM
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "deepseek_v3": ("deepseek_v3", DEEPSEEK, {"first_k_dense_replace": 3, "num_hidden_layers": 5}),
    "gemma2": ("gemma2", SMALL, {"layer_types": list("sffsf"), "num_hidden_layers": 5}),
    "qwen2_moe": (
        "qwen2_moe",
        {**SMALL, "num_experts": 2, "moe_intermediate_size": 8, "decoder_sparse_step": 2,
         "shared_expert_intermediate_size": 8, "num_experts_per_tok": 1},
        {"mlp_only_layers": [0, 3]},
    ),
    "gpt2": ("gpt2", {"n_layer": 4, "n_embd": 16, "n_head": 2, "vocab_size": 40}, {"n_layer": 5}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "vocab_size": 40,
         "attention_types": [[["global", "local"], 2]]},
        {"num_layers": 5, "attention_layers": ["global", "local", "local", "global", "local"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_repeated(models: Path, mp: Mp, kind: str) -> None:
    model_type, settings, expected = KINDS[kind]
    saved(models / "one", model_type, settings, CAUSAL)
    out = models / "out"
    mp("merge", "--recipe", recipe(models, stack((0, 2), (1, 4))), "--out", out, "-b", "x")
    config = json.loads((out / "config.json").read_text())
    for key, value in expected.items():
        found = config[key]
        if key == "layer_types":
            found = [one[0] for one in found]
        assert found == value, key
    result = loaded(out, CAUSAL)
    assert torch.isfinite(result(torch.tensor([[1, 2, 3]])).logits).all()


def test_layers_that_predict_further_tokens(models: Path, mp: Mp) -> None:
    one = saved(models / "one", "deepseek_v3", DEEPSEEK, CAUSAL)
    content = load_file(one / WEIGHTS)
    content |= {
        name.replace(".3.", ".4."): values.clone()
        for name, values in content.items()
        if ".layers.3." in name
    }
    save_file(content | {"model.layers.4.eh_proj.weight": torch.ones(16, 32)}, one / WEIGHTS)
    for ranges, layers, predicting in (
        (((0, 3), (2, 5)), 5, 1),
        (((0, 3), (2, 4)), 5, 0),
    ):
        out = models / f"out{predicting}"
        mp("merge", "--recipe", recipe(models, stack(*ranges)), "--out", out, "-b", out.name)
        config = json.loads((out / "config.json").read_text())
        assert config["num_hidden_layers"] == layers
        counts = [config.get(key) for key in ("num_nextn_predict_layers", "num_mtp_layers")]
        assert predicting in counts
    for others in (((0, 5), (3, 4)), ((0, 2), (4, 5), (2, 4))):
        refused = mp("merge", "--recipe", recipe(models, stack(*others)), "-b", "no", expect=13)
        assert "num_nextn_predict_layers" in refused.err


def test_encoders_and_decoders(models: Path, mp: Mp) -> None:
    speech = transformers.AutoModelForSpeechSeq2Seq
    saved(models / "one", "whisper", WHISPER, speech)
    text = modules(encoder=slices((0, 1), (0, 2)), decoder=slices((0, 2)))
    mp("merge", "--recipe", recipe(models, text), "--out", models / "out", "-b", "x")
    result = loaded(models / "out", speech)
    assert (result.config.encoder_layers, result.config.decoder_layers) == (3, 2)
    assert result.config.num_hidden_layers == 3


def test_heads_that_time_words_follow_their_layers(models: Path, mp: Mp) -> None:
    speech = transformers.AutoModelForSpeechSeq2Seq
    for name, heads in (("one", [[0, 1], [2, 0], [2, 1]]), ("two", [[2, 1]])):
        directory = saved(models / name, "whisper", WHISPER, speech)
        path = directory / GENERATION
        generation = json.loads(path.read_text()) | {"alignment_heads": heads}
        path.write_text(json.dumps(generation))
    encoder = slices((0, 2))
    mixed = slices((1, 3)) + "\n" + slices((2, 3), model="two")
    # A later stage takes the layers of an earlier one by their new numbers.
    stages = "name: first\n" + modules(encoder=encoder, decoder=slices((0, 2), (0, 3)))
    again = modules(encoder=slices((0, 2), model="first"), decoder=slices((1, 5), model="first"))
    for name, text, expected in (
        ("same", modules(encoder=encoder, decoder=slices((0, 3))), [[0, 1], [2, 0], [2, 1]]),
        ("repeated", modules(encoder=encoder, decoder=slices((0, 3), (2, 3))),
         [[0, 1], [2, 0], [2, 1], [3, 0], [3, 1]]),
        ("mixed", modules(encoder=encoder, decoder=mixed), [[1, 0], [1, 1], [2, 1]]),
        ("stages", stages + "\n---\n" + again, [[1, 1], [3, 0], [3, 1]]),
        ("none", modules(encoder=encoder, decoder=slices((1, 2))), None),
    ):  # fmt: skip
        out = models / name
        mp("merge", "--recipe", recipe(models, text), "--out", out, "-b", name)
        assert json.loads((out / GENERATION).read_text()).get("alignment_heads") == expected, name


def test_drafts_that_end_early(models: Path, mp: Mp) -> None:
    directory = saved(models / "one", *KINDS["gemma2"][:2], CAUSAL)
    (directory / GENERATION).write_text('{"assistant_early_exit": 2}')
    for ranges, expected in (((0, 3), (2, 4)), 0), (((0, 2), (1, 4)), 13):
        told = mp("merge", "--recipe", recipe(models, stack(*ranges)), "-b", "x", expect=expected)
        assert expected == 0 or ("assistant_early_exit" in told.err and GENERATION in told.err)


def test_the_first_layer_of_a_t5_stays_the_first(models: Path, mp: Mp) -> None:
    auto = transformers.AutoModelForSeq2SeqLM
    saved(models / "one", "t5", T5, auto)
    text = modules(encoder=slices((0, 2), (1, 3)), decoder=slices((0, 1), (2, 3)))
    mp("merge", "--recipe", recipe(models, text), "--out", models / "out", "-b", "x")
    result = loaded(models / "out", auto)
    assert (result.config.num_layers, result.config.num_decoder_layers) == (4, 2)
    for ranges in (((1, 3),), ((0, 2), (0, 3))):
        text = modules(encoder=slices(*ranges), decoder=slices((0, 3)))
        refused = mp("merge", "--recipe", recipe(models, text), "-b", "no", expect=13)
        assert "relative_attention_bias" in refused.err


def test_towers(models: Path, mp: Mp) -> None:
    part = {**SMALL, "num_hidden_layers": 2, "projection_dim": 8}
    settings = {
        "text_config": {**part, "max_position_embeddings": 8, "eos_token_id": 2},
        "vision_config": {**part, "image_size": 8, "patch_size": 4, "num_hidden_layers": 3},
        "projection_dim": 8,
    }
    auto = transformers.AutoModel
    saved(models / "one", "clip", settings, auto)
    named = json.loads((models / "one" / "config.json").read_text())
    assert named["vision_config"]["num_hidden_layers"] == 3
    projections = "".join(
        f"\n  {name}: {{models: [{{model: one}}]}}"
        for name in ("text_projection", "visual_projection")
    )
    text = modules(encoder=slices((0, 2), (1, 2)), vision_tower=slices((0, 2)))
    mp("merge", "--recipe", recipe(models, text + projections), "--out", models / "out", "-b", "x")
    result = loaded(models / "out", auto)
    layers = result.config.text_config, result.config.vision_config
    assert [one.num_hidden_layers for one in layers] == [3, 2]
