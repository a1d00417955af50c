"""An adapter made with peft, through a recipe: what peft's own merge gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError, UsageError
from mergepipe.plans.left_out import Kind

LLAMA = {
    "r": 3, "lora_alpha": 7, "use_rslora": True,
    "target_modules": ["q_proj", "up_proj", "embed_tokens"],
    "rank_pattern": {"up_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 3},
    "modules_to_save": ["lm_head"],
}  # fmt: skip
GPT2 = {"r": 2, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
# Layers whose weights are (in, out) and others, some square; PEFT saves one flag for all.
MIXED = {
    "r": 2, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj", "lm_head"],
    "alpha_pattern": {r"h\.(0|1)\.attn\.c_proj": 3, r".*\.mlp\.c_.*": 2},
}  # fmt: skip
DORA = {
    "r": 3, "lora_alpha": 7, "use_dora": True, "use_rslora": True,
    "target_modules": ["q_proj", "up_proj", "embed_tokens"], "rank_pattern": {"up_proj": 2},
    "alpha_pattern": {r"^model\.layers\.1\..*q_proj": 3}, "modules_to_save": ["lm_head"],
}  # fmt: skip
# Rows of the embeddings and of a head of its own; biases of factors.
TOKENS = {
    "r": 2, "target_modules": ["k_proj", "o_proj"],
    "trainable_token_indices": {"embed_tokens": [3, 31, 0], "lm_head": [5]},
}  # fmt: skip
BIASES = {
    "r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], "lora_bias": True,
    "bias": "lora_only",
}  # fmt: skip
DORA_GPT2 = {
    "r": 2, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj", "lm_head"], "use_dora": True,
    "lora_bias": False, "alpha_pattern": {r"h\.(0|1)\.attn\.c_proj": 3},
}  # fmt: skip
DORA_VIT = {"r": 2, "target_modules": ["q_proj", "fc2", "projection"], "use_dora": True}
# On disk `encoder.layer.0.attention.attention.query`, in memory `layers.0.attention.q_proj`; and
# a convolution.
VIT = {
    "r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "fc2", "projection"],
    "modules_to_save": ["classifier"], "bias": "all",
}  # fmt: skip

# One bias of the head has two names in memory, and PEFT saves both.
BERT = {"r": 2, "lora_alpha": 3, "target_modules": ["query", "dense"], "bias": "all"}


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
        )
    )  # fmt: skip


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=2, n_head=2, n_positions=16))


def untied() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=8, n_embd=8, n_layer=2, n_head=2, n_positions=16, tie_word_embeddings=False
        )
    )


def vit() -> Any:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=2,
            image_size=8, patch_size=4,
        )
    )  # fmt: skip


def bert() -> Any:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=32, hidden_size=8, intermediate_size=16, num_attention_heads=2,
            num_hidden_layers=2, max_position_embeddings=8,
        )
    )  # fmt: skip


def make(directory: Path, model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """`model` and `lora` in a directory; returns the weights that peft merges."""
    tune(directory, model, settings).merge_and_unload().save_pretrained(directory / "merged")
    return load_file(directory / "merged" / "model.safetensors")


def tune(directory: Path, model: Any, settings: dict[str, Any]) -> Any:
    """`model` and `lora` in a directory; returns the model with the adapter in use."""
    torch.manual_seed(1)
    model.save_pretrained(directory / "model")
    tuned: Any = peft.get_peft_model(model, peft.LoraConfig(**settings))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(str(directory / "lora"))
    return tuned


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *((llama, LLAMA), (gpt2, GPT2), (untied, MIXED), (vit, VIT), (llama, DORA), (bert, BERT)),
        *((llama, TOKENS), (llama, BIASES), (untied, DORA_GPT2), (vit, DORA_VIT)),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "merge_method: passthrough\nmodels: [{model: model+lora}]\n",
        "merge_method: task_arithmetic\nbase_model: model\nmodels: [{model: lora}]\n"
        "parameters: {weight: 1}\n",
        "merge_method: linear\nmodels: [{model: model}, {model: model+lora}]\n"
        "parameters: {weight: [{filter: lm_head, value: 0.5}, {value: 0.5}]}\n",
    ],
    ids=["on the model", "by itself", "half"],
)
def test_what_peft_merges(model: Any, settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    expected = make(tmp_path, model(), settings)
    before = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "recipe.yml").write_text(text)
    with Repository.init(tmp_path / "repository") as repository:
        result = repository.merge_recipe(tmp_path / "recipe.yml", branch="merged")
        repository.checkout(result.commit.hex(), to=tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert made.keys() == expected.keys()
    changed = 0
    for name, values in expected.items():
        wanted = (before[name] + values) / 2 if "linear" in text else values
        np.testing.assert_allclose(made[name], wanted, rtol=2e-6, atol=1e-6, err_msg=name)
        changed += not np.array_equal(made[name], before[name])
    assert changed >= 5


EMBEDDINGS, HEAD = "embed_tokens", "lm_head"


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({"modules_to_save": [EMBEDDINGS, HEAD]}, False),
        ({"modules_to_save": [EMBEDDINGS]}, False),
        ({"target_modules": ["q_proj", EMBEDDINGS]}, False),
        ({"target_modules": ["q_proj", HEAD]}, False),
        ({"target_modules": ["q_proj", EMBEDDINGS], "ensure_weight_tying": True}, True),
        ({"modules_to_save": [EMBEDDINGS], "ensure_weight_tying": True}, True),
        ({"target_modules": ["q_proj", EMBEDDINGS], "use_dora": True}, False),
        ({"trainable_token_indices": [3, 31]}, True),
        ({"trainable_token_indices": {EMBEDDINGS: [3, 31], HEAD: [5]}}, False),
        ({}, True),
    ],
)
@pytest.mark.parametrize("by_itself", [False, True])
def test_shared_embeddings_end_to_be_shared_where_an_adapter_trained_one(
    settings: dict[str, Any], shared: bool, by_itself: bool, tmp_path: Path
) -> None:
    """The live model is what is right: peft's merge of factors changes head and embeddings."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    chosen: Any = {"target_modules": ["q_proj"], "r": 2} | settings
    tuned: Any = peft.get_peft_model(model, peft.LoraConfig(**chosen))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(str(tmp_path / "lora"))
    text = "merge_method: passthrough\nmodels: [{model: model+lora}]\n"
    if by_itself:
        text = (
            "merge_method: task_arithmetic\nbase_model: model\n"
            "models: [{model: lora, parameters: {weight: 1}}]\n"
        )
    (tmp_path / "recipe.yml").write_text(text)
    with Repository.init(tmp_path / "repository") as repository:
        result = repository.merge_recipe(tmp_path / "recipe.yml", branch="merged")
        repository.checkout(result.commit.hex(), to=tmp_path / "out")
    merged: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.tie_word_embeddings is shared
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) is not shared
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        live, loaded = tuned(input_ids=tokens).logits, merged(input_ids=tokens).logits
    np.testing.assert_allclose(loaded, live, atol=1e-5)


def merged(directory: Path, text: str, **options: Any) -> Any:
    (directory / "recipe.yml").write_text(text)
    with Repository.init(directory / "repository") as repository:
        result = repository.merge_recipe(directory / "recipe.yml", branch="merged", **options)
        repository.checkout(result.commit.hex(), to=directory / "out")
    return result


ON_MODEL = "merge_method: passthrough\nmodels: [{model: model+lora}]\n"


def test_dora_in_pieces_and_in_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are measured piece by piece, columns in a pass of their own; rounded at the end."""
    monkeypatch.setattr("mergepipe.checkpoints.adapted_tensors._PIECE_BYTES", 200)
    settings = DORA_GPT2 | {"target_modules": ["c_attn", "lm_head"]}
    torch.manual_seed(1)
    model = untied().to(torch.bfloat16)
    tune(tmp_path, model, settings)
    merged(tmp_path, ON_MODEL)
    base = load_torch(tmp_path / "model" / "model.safetensors")
    lora = load_torch(tmp_path / "lora" / "adapter_model.safetensors")
    found = load_torch(tmp_path / "out" / "model.safetensors")
    for name, axis in (("transformer.h.0.attn.c_attn", 0), ("lm_head", 1)):
        stem = f"base_model.model.{name}.lora_"
        up, down = (lora[f"{stem}{side}.weight"].double() for side in "BA")
        change = 2.5 * (up @ down)
        values = base[f"{name}.weight"].double() + (change.T if axis == 0 else change)
        lengths = lora[f"{stem}magnitude_vector"].double() / values.norm(dim=axis)
        values = values * (lengths[None] if axis == 0 else lengths[:, None])
        assert found[f"{name}.weight"].dtype == torch.bfloat16
        assert torch.equal(found[f"{name}.weight"], values.to(torch.bfloat16))


def test_checkpoints_in_an_adapters_directory_are_not_it(tmp_path: Path) -> None:
    expected = make(tmp_path, llama(), LLAMA)
    for name in ("checkpoint-5", "other"):
        (tmp_path / "lora" / name).mkdir()
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            data = (tmp_path / "lora" / file).read_bytes()
            (tmp_path / "lora" / name / file).write_bytes(data)
        values = load_file(tmp_path / "lora" / name / "adapter_model.safetensors")
        save_file({name: 9 * value for name, value in values.items()},
                  tmp_path / "lora" / name / "adapter_model.safetensors")  # fmt: skip
    left_out = merged(tmp_path, ON_MODEL).left_out
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=1e-6, err_msg=name)
    told = [one.names for one in left_out if one.kind is Kind.WEIGHT_FILES]
    paths = {f"{name}/adapter_model.safetensors" for name in ("checkpoint-5", "other")}
    assert {path for names in told for path in names} == paths


def test_a_dry_run_makes_no_tensors(tmp_path: Path) -> None:
    make(tmp_path, llama(), DORA)
    (tmp_path / "recipe.yml").write_text(ON_MODEL)
    with Repository.init(tmp_path / "repository") as repository:
        for name in ("model", "lora"):
            repository.commit(tmp_path / name, message=name, branch=name)
        with pytest.raises(UsageError, match="what a DoRA makes"):
            repository.plan_recipe(tmp_path / "recipe.yml", store=False)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ({"trainable_token_indices": [3]}, "the config names 1 tokens"),
        ({"trainable_token_indices": None}, "the config names 0 tokens"),
        ({"trainable_token_indices": [3, 32]}, "it is of token 32, and there are 32 rows"),
        ({"trainable_token_indices": [-1, 3]}, "it is of token"),
    ],
)
def test_rows_that_do_not_fit(edit: dict[str, Any], problem: str, tmp_path: Path) -> None:
    make(tmp_path, llama(), TOKENS | {"trainable_token_indices": [3, 5]})
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(MergeInputError, match=problem):
        merged(tmp_path, ON_MODEL)


def test_on_a_stages_result_nothing_can_be_made(tmp_path: Path) -> None:
    make(tmp_path, llama(), DORA)
    text = (
        "name: half\nmerge_method: linear\nmodels: [{model: model}]\nparameters: {weight: 1}\n---\n"
        + ON_MODEL.replace("model+lora", "half+lora")
    )
    with pytest.raises(MergeInputError, match="the result of a stage"):
        merged(tmp_path, text)


@pytest.mark.parametrize("settings", [DORA, TOKENS, BIASES])
def test_what_is_made_must_be_finite(settings: dict[str, Any], tmp_path: Path) -> None:
    tune(tmp_path, llama(), settings)
    path = tmp_path / "lora" / "adapter_model.safetensors"
    content = load_file(path)
    for name, values in content.items():
        if name.endswith(("magnitude_vector", "tokens_delta", "lora_B.bias")):
            values.reshape(-1)[0] = np.nan
    save_file(content, path)
    with pytest.raises(MergeInputError, match=r"'lora' makes .* that are not finite"):
        merged(tmp_path, ON_MODEL)


def test_an_adapter_is_no_expert_by_name(tmp_path: Path) -> None:
    tune(tmp_path, llama(), LLAMA)
    with Repository.init(tmp_path / "repository") as repository:
        for name in ("model", "lora"):
            repository.commit(tmp_path / name, message=name, branch=name)
        with pytest.raises(MergeInputError, match="'lora' is an adapter, not a model") as refused:
            repository.plan(base="model", experts=["lora"])
    assert "model+lora" in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        None,
        "base_model: model\nmerge_method: linear\nmodels: [{model: model+both}]\n",
        "merge_method: linear\nmodels: [{model: model}, {model: both}]\n",
    ],
)
def test_a_model_and_an_adapter_in_one_directory(text: str | None, tmp_path: Path) -> None:
    tune(tmp_path, llama(), LLAMA)
    both = tmp_path / "both"
    shutil.copytree(tmp_path / "lora", both)
    shutil.copy(tmp_path / "model" / "model.safetensors", both)
    said = r"both' has the weights of a model \(model.safetensors\) and an adapter_config.json"
    with pytest.raises(MergeInputError, match=said) as refused:
        if text is not None:
            merged(tmp_path, text + "parameters: {weight: 1}\n")
        with Repository.init(tmp_path / "repository") as repository:
            repository.plan(base=str(tmp_path / "model"), experts=[str(both)])
    assert "adapter_config.json and adapter_model.safetensors" in refused.value.hint
