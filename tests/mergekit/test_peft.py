"""An adapter made with peft, through a recipe: what peft's own merge gives."""

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file
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
            num_attention_heads=2, num_key_value_heads=1,
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
    torch.manual_seed(1)
    model.save_pretrained(directory / "model")
    tuned: Any = peft.get_peft_model(model, peft.LoraConfig(**settings))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(str(directory / "lora"))
    merged = tuned.merge_and_unload()
    merged.save_pretrained(directory / "merged")
    return load_file(directory / "merged" / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "settings"), [(llama, LLAMA), (gpt2, GPT2), (untied, MIXED), (vit, VIT), (bert, BERT)]
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
        np.testing.assert_allclose(made[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)
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
