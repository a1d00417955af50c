"""One model in two layouts of transformers: merged as one, or refused as another layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError

WEIGHTS = "model.safetensors"
SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2,
    "vocab_size": 30,
}  # fmt: skip
MOE: dict[str, Any] = SMALL | {"num_key_value_heads": 1, "eos_token_id": 2}


def bert() -> Any:
    return BertForMaskedLM(BertConfig(**SMALL))


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=8, eos_token_id=2,
            bos_token_id=1,
        )
    )  # fmt: skip


def distilbert() -> Any:
    return DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=30, dim=16, hidden_dim=24, n_heads=2, n_layers=2)
    )


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True))


def mixtral() -> Any:
    return MixtralForCausalLM(MixtralConfig(**MOE, num_local_experts=2))


def qwen3_moe() -> Any:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **MOE, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, head_dim=8
        )
    )


def bare(model: Any, directory: Path) -> None:
    """The model without its head's class: its names begin without `transformer.` or `model.`."""
    model.base_model.save_pretrained(directory)


def tensorflow(model: Any, directory: Path) -> None:
    """As the first checkpoints of BERT are spelled."""
    model.save_pretrained(directory)
    content = load_file(directory / WEIGHTS)
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        content = {name.replace(new, old): values for name, values in content.items()}
    assert any("gamma" in name for name in content)
    save_file(content, directory / WEIGHTS, {"format": "pt"})


def fused(model: Any, directory: Path) -> None:
    """As transformers 5 has experts in memory."""
    model.save_pretrained(directory, save_original_format=False)
    assert any(name.endswith("gate_up_proj") for name in load_file(directory / WEIGHTS))


Save = Callable[[Any, Path], None]
NAMES = [(bert, tensorflow), (gpt2, bare), (llama, bare)]
# The bare model lacks its head, too.
WITH_HEAD = [(distilbert, bare)]
LAYOUTS = [(mixtral, fused), (qwen3_moe, fused)]
RECIPE = "merge_method: task_arithmetic\nbase_model: {base}\nmodels: [{{model: {expert}}}]\n" \
    "parameters: {{weight: 0.5}}\n"  # fmt: skip


def save_two(make: Callable[[], Any], save: Save, directory: Path) -> None:
    """`base` in the usual layout; `tuned` in both, `tuned` and `other`."""
    torch.manual_seed(1)
    model = make()
    model.save_pretrained(directory / "base")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory / "tuned")
    save(model, directory / "other")


def weights(directory: Path) -> dict[str, Any]:
    return load_file(directory / WEIGHTS)


@pytest.mark.parametrize("how", ["recipe", "plain"])
@pytest.mark.parametrize(("make", "save"), NAMES + WITH_HEAD)
def test_names_of_another_layout(
    make: Callable[[], Any], save: Save, how: str, tmp_path: Path
) -> None:
    save_two(make, save, tmp_path)
    told: list[str] = []
    with Repository.init(tmp_path / "repository") as repository:
        for name in ("base", "tuned", "other"):
            repository.commit(tmp_path / name, message=name, branch=name)
        for expert in ("tuned", "other"):
            if how == "recipe":
                text = RECIPE.format(base="base", expert=expert)
                repository.merge_recipe(text, branch="r", allow_missing=True, told=told.append)
            else:
                planned = repository.plan(
                    base="base", experts=[expert], method="task_arithmetic", weight=0.5,
                    allow_missing=True, told=told.append,
                )  # fmt: skip
                repository.merge(planned, branch="r")
            repository.checkout("r", to=tmp_path / f"out-{expert}")
    expected, found = (weights(tmp_path / f"out-{expert}") for expert in ("tuned", "other"))
    assert found.keys() == expected.keys() == weights(tmp_path / "base").keys()
    own = [name for name in expected if name.startswith("vocab_")]
    assert bool(own) is (make is distilbert)
    for name in expected.keys() - set(own):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert any("names of 'other' are matched with those of 'base'" in line for line in told)
    assert any("'other' lacks" in line for line in told) is bool(own)


@pytest.mark.parametrize("how", ["recipe", "plain"])
@pytest.mark.parametrize("first", ["base", "other"])
@pytest.mark.parametrize(("make", "save"), LAYOUTS)
def test_experts_in_one_tensor_or_in_several(
    make: Callable[[], Any], save: Save, first: str, how: str, tmp_path: Path
) -> None:
    save_two(make, save, tmp_path)
    expert = "other" if first == "base" else "tuned"
    with Repository.init(tmp_path / "repository") as repository:
        for name in (first, expert):
            repository.commit(tmp_path / name, message=name, branch=name)
        with pytest.raises(MergeInputError, match="keeps its experts in one tensor") as refused:
            if how == "recipe":
                text = RECIPE.format(base=first, expert=expert)
                repository.plan_recipe(text, allow_missing=True)
            else:
                repository.plan(base=first, experts=[expert], allow_missing=True)
    assert "save them again" in refused.value.hint


@pytest.mark.parametrize(("make", "save"), NAMES)
def test_an_adapter_of_another_layout(make: Callable[[], Any], save: Save, tmp_path: Path) -> None:
    save_two(make, save, tmp_path)
    model = make().from_pretrained(tmp_path / "tuned")
    modules = {"bert": ["query", "dense"], "gpt2": ["c_attn"], "llama": ["q_proj"]}
    settings = peft.LoraConfig(r=2, target_modules=modules[make.__name__], use_dora=True)
    if make is bert:
        settings.target_modules = r".*layer\.\d\.(attention\.self\.query|output\.dense)"
    tuned: Any = peft.get_peft_model(model, settings)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(str(tmp_path / "lora"))
    expected = {
        name: value.numpy() for name, value in tuned.merge_and_unload().state_dict().items()
    }
    with Repository.init(tmp_path / "repository") as repository:
        for name in ("tuned", "other"):
            (tmp_path / "r.yml").write_text(
                f"merge_method: passthrough\nmodels: [{{model: {name}+lora}}]\n"
            )
            repository.merge_recipe(tmp_path / "r.yml", branch="r")
            repository.checkout("r", to=tmp_path / f"out-{name}")
    usual, found = (weights(tmp_path / f"out-{name}") for name in ("tuned", "other"))
    before = weights(tmp_path / "tuned")
    for name, values in usual.items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-6, atol=1e-6, err_msg=name)
    changed = {values.tobytes() for name, values in usual.items()
               if values.tobytes() != before[name].tobytes()}  # fmt: skip
    assert changed
    assert changed <= {values.tobytes() for values in found.values()}
