"""LoRA adapters: what peft's own merge gives is what an adapter is said to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.formats.adapter_config import ADAPTER_CONFIG, read_config
from mergepipe.formats.adapters import ADAPTER_WEIGHTS, Adapter, read_adapter

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
        ({"use_dora": True}, "magnitude_vector' is missing, and the config says DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "not understood"),
        ({"alpha_pattern": {".*a.*b.*c.*d": 1}}, "not understood"),
        ({"alpha_pattern": {"(a": 1}}, "not understood"),
        ({"alora_invocation_tokens": [1, 2]}, "an aLoRA"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "repeated layers"),
        ({"lora_bias": True}, "lora_B.bias' is missing, and the config has lora_bias"),
        ({"use_qalora": True}, "QALoRA"),
        ({"arrow_config": {"top_k": 2}}, "Arrow"),
        ({"use_what_comes_next": True}, "use_what_comes_next, which is not known here"),
    ],
)
def test_other_kinds_are_refused(members: dict[str, object], problem: str) -> None:
    with pytest.raises(MergeInputError, match=problem):
        read_adapter(config(**members), FACTORS, MODEL, "a")


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "P_TUNING", "XLORA"])
def test_what_peft_cannot_merge_either_says_so(kind: str) -> None:
    with pytest.raises(MergeInputError, match=kind) as refused:
        read_adapter(config(peft_type=kind), FACTORS, MODEL, "a")
    assert "peft cannot merge it either" in refused.value.hint
    with pytest.raises(MergeInputError, match="LOHA") as refused:
        read_adapter(config(peft_type="LOHA"), FACTORS, MODEL, "a")
    assert "merge_and_unload" in refused.value.hint


def test_an_adapter_of_what_the_model_keeps_in_one_tensor() -> None:
    fused = {"model.layers.0.qkv_proj.weight": (18, 4)}
    with pytest.raises(MergeInputError, match="keys and values in one tensor") as refused:
        read_adapter(config(), FACTORS, fused, "a")
    assert "merge_and_unload" in refused.value.hint


def test_which_weights_are_turned_follows_from_the_model() -> None:
    square = {"h.0.attn.c_proj.weight": (4, 4), "lm_head.weight": (4, 4)}
    factors = {
        f"base_model.model.{name.removesuffix('weight')}lora_{side}.weight": shape
        for name in square
        for side, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    wide: dict[str, tuple[int, ...]] = {"h.0.attn.c_attn.weight": (4, 12)}
    high: dict[str, tuple[int, ...]] = {"h.0.attn.c_attn.weight": (12, 4)}

    def turned(more: dict[str, tuple[int, ...]], kind: str | None, **members: object) -> list[bool]:
        of = None if kind is None else {"model_type": kind}
        changes = read_adapter(config(**members), factors, {**square, **more}, "a", of).changes
        return [changes[name].transposed for name in square]

    for flag in (True, False):
        assert turned({}, "gpt2", fan_in_fan_out=flag) == [True, False]
        assert turned({}, "gpt_bigcode", fan_in_fan_out=flag) == [False, False]
        assert turned(wide, None, fan_in_fan_out=flag) == [True, False]
        assert turned(high, None, fan_in_fan_out=flag) == [False, False]
        assert turned({}, None, fan_in_fan_out=flag) == [flag, flag]


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


@pytest.mark.parametrize(
    "pattern",
    [
        "(q|k)_proj", r"[^.]+\.q_proj", r"layers\.\d{1,2}\.self_attn\.\w+",
        "layers.1.self_attn.q_proj",
        r"^model\.layers\.(0|2)\.self_attn\.q_proj$", r"(?:k|v)_proj$", r".*\.1\..*_proj", "q_pro",
        r"self_attn\.[a-p]_proj|layers\.0\..*", "proj",
    ],
)  # fmt: skip
def test_patterns_are_read_as_peft_reads_them(pattern: str) -> None:
    other = pytest.importorskip("peft.utils.other")
    settings = read_config(config(alpha_pattern={pattern: 3}), "a")
    for layer in (0, 1, 12):
        for module in ("q_proj", "k_proj", "v_proj"):
            name = f"model.layers.{layer}.self_attn.{module}"
            matched = other.get_pattern_key([pattern], name) == pattern
            assert (settings.alpha(name, "a") == 3) is matched, name
