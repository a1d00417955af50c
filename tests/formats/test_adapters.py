"""LoRA adapters: what peft's own merge gives is what an adapter is said to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.formats.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, read_adapter

MODEL = {"model.layers.0.q_proj.weight": (6, 4), "lm_head.weight": (9, 4)}
FACTORS = {
    "base_model.model.model.layers.0.q_proj.lora_A.weight": (2, 4),
    "base_model.model.model.layers.0.q_proj.lora_B.weight": (6, 2),
}


def config(**members: object) -> bytes:
    return json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 8, **members}).encode()


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8))


def applied(
    adapter: Adapter, tensors: dict[str, np.ndarray], model: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the record says, done plainly in float64."""
    merged = {name: value.astype(np.float64) for name, value in model.items()}
    for target, own in adapter.replaced.items():
        merged[target] = tensors[own].astype(np.float64)
    for target, change in adapter.changes.items():
        product = tensors[change.up].astype(np.float64) @ tensors[change.down]
        merged[target] += change.scale * (product.T if change.transposed else product)
    return merged


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
        (llama, {"target_modules": "all-linear", "use_rslora": True, "r": 4}),
        (
            llama,
            {
                "target_modules": ["q_proj", "k_proj"],
                "rank_pattern": {"layers.1.self_attn.q_proj": 5},
                "alpha_pattern": {r".*\.0\.self_attn\.k_proj": 3},
            },
        ),
        (llama, {"target_modules": ["embed_tokens", "o_proj"], "modules_to_save": ["lm_head"]}),
        (llama, {"target_modules": ["o_proj"], "bias": "all", "modules_to_save": ["norm"]}),
        (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        (gpt2, {"target_modules": ["c_attn", "wte"]}),
    ],
)
def test_an_adapter_does_what_peft_does(
    make: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = make()
    before = {
        name: value.detach().numpy().copy()
        for name, value in model.state_dict().items()
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings)
    }
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(**{"r": 3, "lora_alpha": 7, "task_type": "CAUSAL_LM", **settings})
    )
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / ADAPTER_WEIGHTS)
    found = read_adapter(
        (tmp_path / ADAPTER_CONFIG).read_bytes(),
        {name: value.shape for name, value in tensors.items()},
        {name: value.shape for name, value in before.items()},
        "tuned",
    )
    expected = tuned.merge_and_unload().state_dict()
    merged = applied(found, tensors, before)
    assert merged.keys() <= expected.keys()
    for name, value in merged.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-5, atol=1e-6)
    assert any(not np.array_equal(merged[name], before[name]) for name in merged)


def test_a_bare_model_is_found_under_its_prefix() -> None:
    bare = {"layers.0.q_proj.weight": (6, 4)}
    found = read_adapter(config(), FACTORS, bare, "a")
    assert list(found.changes) == ["layers.0.q_proj.weight"]
    wrapped = {"language_model.model.layers.0.q_proj.weight": (6, 4)}
    assert list(read_adapter(config(), FACTORS, wrapped, "a").changes) == list(wrapped)


def test_scale_and_rank_come_from_what_was_saved() -> None:
    change = read_adapter(config(r=64), FACTORS, MODEL, "a").changes["model.layers.0.q_proj.weight"]
    assert change.scale == 4.0
    assert not change.transposed


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "not understood"),
    ],
)
def test_other_kinds_are_refused(members: dict[str, object], problem: str) -> None:
    with pytest.raises(MergeInputError, match=problem):
        read_adapter(config(**members), FACTORS, MODEL, "a")


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({}, "changes nothing"),
        ({"base_model.model.model.layers.0.q_proj.lora_A.weight": (2, 4)}, "is missing"),
        ({"base_model.model.model.layers.0.q_proj.lora_B.weight": (6, 2)}, "is missing"),
        (dict.fromkeys(FACTORS, (2, 2)), "and the weight is"),
        ({name.replace("q_proj", "z"): shape for name, shape in FACTORS.items()}, "no such weight"),
        ({"base_model.model.lm_head.weight": (10, 4)}, "its shape"),
        ({"base_model.model.other.weight": (10, 4)}, "no such tensor"),
        ({"base_model.model.lm_head.lora_magnitude_vector": (10,)}, "no factor"),
    ],
)
def test_what_does_not_fit_is_named(tensors: dict[str, tuple[int, ...]], problem: str) -> None:
    with pytest.raises(MergeInputError, match=problem):
        read_adapter(config(), tensors, MODEL, "a")


def test_a_config_that_is_none() -> None:
    for bad in (b"", b"[1]", b'{"r": "x"}', b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedFile):
            read_adapter(bad, FACTORS, MODEL, "a")
