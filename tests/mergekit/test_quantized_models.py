"""Merges of models in block FP8, loaded with transformers: logits of the merge of their numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.mergekit.test_command import Mp, mp, recipe

__all__ = ["mp"]
transformers = pytest.importorskip("transformers")
BLOCK = 16  # which divides no side of the gates (40 x 24)


def llama(directory: Path, seed: int) -> dict[str, torch.Tensor]:
    """A model in block FP8; returns the numbers that it stands for, in float64."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=24, intermediate_size=40, num_attention_heads=2, num_key_value_heads=1,
        num_hidden_layers=2, vocab_size=48, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    stored, meaning = {}, {}
    for name, weight in load_file(directory / "model.safetensors").items():
        if weight.ndim < 2 or "layers" not in name:
            stored[name], meaning[name] = weight, weight.double()
            continue
        rows, columns = weight.shape
        padded = torch.zeros(-(-rows // BLOCK) * BLOCK, -(-columns // BLOCK) * BLOCK)
        padded[:rows, :columns] = weight
        grid = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
        scale = grid.abs().amax((1, 3)) / 448
        wide = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
        stored[name] = (weight / wide).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale
        meaning[name] = stored[name].double() * wide.double()
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    settings["quantization_config"] = {
        "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic",
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(settings))
    return meaning


@pytest.mark.parametrize("how", ["recipe", "plain"])
def test_the_result_computes_what_the_numbers_say(
    tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    base, one, two = (llama(tmp_path / name, seed) for seed, name in enumerate(("b", "x", "y")))
    mp("init", tmp_path / "repository")
    monkeypatch.chdir(tmp_path / "repository")
    if how == "recipe":
        text = """merge_method: task_arithmetic
base_model: b
dtype: float32
models:
- {model: x, parameters: {weight: 0.5}}
- {model: y, parameters: {weight: 0.25}}
"""
        arguments: tuple[object, ...] = ("--recipe", recipe(tmp_path, text))
    else:
        arguments = (
            *(tmp_path / "x", tmp_path / "y", "--base", tmp_path / "b", "--dtype", "F32"),
            *("--method", "task_arithmetic", "--weight", "0.5,0.25"),
        )
    mp("merge", *map(str, arguments), "-b", "merged", "--out", tmp_path / "out")
    found, problems = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(problems.values())
    expected = transformers.LlamaForCausalLM(found.config).double()
    expected.load_state_dict(
        {name: base[name] + 0.5 * (one[name] - base[name]) + 0.25 * (two[name] - base[name])
         for name in base}
    )  # fmt: skip
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        logits = found.eval()(input_ids=tokens).logits
        exact = expected.eval()(input_ids=tokens).logits
    torch.testing.assert_close(logits.double(), exact, rtol=1e-4, atol=1e-5)
