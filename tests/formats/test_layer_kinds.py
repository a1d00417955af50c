"""Layers that were moved are built by transformers as in the model that they came from."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.formats.config_json import counted
from mergepipe.formats.implied_layers import IMPLIED, UNKNOWN, implied
from mergepipe.formats.layer_numbers import RULED
from mergepipe.formats.restacking import LayerOrigin, restacked

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

COUNT = 14
TINY = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 16,
    "pad_token_id": 0,
    "num_experts": 2,
    "num_local_experts": 2,
}
# Settings of language models that build their layers by number: model type, settings.
NUMBERED: Sequence[tuple[str, dict[str, Any]]] = (
    ("afmoe", {"num_dense_layers": 2}),
    ("bamba", {"attn_layer_indices": [2, 5, 9], "mamba_n_heads": 2, "mamba_d_head": 16}),
    ("cohere2", {}),
    ("deepseek_v2", {"first_k_dense_replace": 3}),
    ("deepseek_v3", {"first_k_dense_replace": 3}),
    ("diffllama", {}),
    ("dots1", {"first_k_dense_replace": 2, "n_routed_experts": 2, "n_shared_experts": 1}),
    ("ernie4_5_moe", {"moe_layer_start_index": 2}),
    ("exaone4", {"sliding_window": 8}),
    ("gemma2", {}),
    ("gemma3_text", {}),
    ("glm4_moe", {"first_k_dense_replace": 2}),
    ("gpt_neo", {"num_layers": COUNT, "attention_types": [[["global", "local"], 7]]}),
    ("gpt_oss", {}),
    ("jamba", {"attn_layer_period": 4, "attn_layer_offset": 2, "use_mamba_kernels": False}),
    ("lfm2", {"full_attn_idxs": [2, 5, 8]}),
    ("llama4_text", {"interleave_moe_layer_step": 2}),
    ("minimax", {}),
    ("modernbert", {}),
    ("olmo3", {}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 5}),
    ("qwen2_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [3]}),
    ("qwen3", {"use_sliding_window": True, "max_window_layers": 5}),
    ("qwen3_moe", {"decoder_sparse_step": 1, "mlp_only_layers": [0, 7]}),
    ("qwen3_next", {"decoder_sparse_step": 2}),
    ("recurrent_gemma", {}),
    ("smollm3", {}),
)
STACKS = {
    "the first": list(range(9)),
    "repeated": [*range(8), *range(4, 14)],
    "interleaved": [0, 1, 2, 2, 3, 3, 4, 5, 4, 5, 6, 8, 7, 13],
}


# Model types -> stacks that their configs cannot describe.
REFUSED = {
    "diffllama": ("repeated", "interleaved"),
    "jamba": ("interleaved",),
    "minimax": ("the first", "repeated", "interleaved"),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(("kind", "settings"), NUMBERED, ids=[kind for kind, _ in NUMBERED])
def test_every_layer_stays_what_it_was(kind: str, settings: dict[str, Any], stack: str) -> None:
    """As far as the keys of its config can say so; else the key is named."""
    before = of_type(kind, settings)
    origins = [LayerOrigin(before, layer) for layer in STACKS[stack]]
    if stack in REFUSED.get(kind, ()):
        with pytest.raises(MergeInputError) as refused:
            restacked(before, origins)
        assert any(f"'{key}'" in refused.value.message for key in RULED)
        return
    after = restacked(before, origins)
    assert counted(after)[1] == len(origins)
    own = layers_of(before)
    assert layers_of(after) == [own[layer] for layer in STACKS[stack]]


def test_what_models_derive_by_number_is_known() -> None:
    """A class of transformers whose lists by layer are not in the config has them in a table."""
    checked = 0
    for kind, key, entries, config in derived_lists():
        if key in UNKNOWN.get(kind, ()):
            continue
        checked += 1
        assert kind in IMPLIED.get(key, {}), f"{kind} derives {key}: {entries}"
        found = [implied(config, key, number, COUNT) for number in range(COUNT)]
        assert found == list(entries), (kind, key)
    assert checked > 30


def of_type(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A tiny config as a file has it, without the lists that transformers derives."""
    config = transformers.AutoConfig.for_model(kind, **{**TINY, **sizes(kind), **settings})
    return {
        key: value
        for key, value in config.to_diff_dict().items()
        if key in settings or not (isinstance(value, list) and len(value) == COUNT)
    }


def sizes(kind: str) -> dict[str, Any]:
    count = "num_layers" if kind == "gpt_neo" else "num_hidden_layers"
    return {count: COUNT}


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What transformers builds for each layer: parameters, and plain settings of its modules."""
    loaded = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(loaded)
    lists = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == counted(config)[1]
    ]
    return [described(layer) for layer in lists[0]]


def described(layer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {name: list(one.shape) for name, one in layer.named_parameters()}
    for name, module in layer.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, bool | int | float | str) and key not in ("layer_idx", "layer_id"):
                found[f"{name}:{key}"] = value
        found[f"{name}:class"] = type(module).__name__
    return found


def derived_lists() -> Iterator[tuple[str, str, Sequence[Any], dict[str, Any]]]:
    """Every list that differs by layer although the config was given none."""
    for config in config_classes():
        try:
            made = config(num_hidden_layers=COUNT)
        except Exception:
            continue
        given = made.to_dict()
        if given.get("num_hidden_layers") != COUNT:
            continue
        plain = {key: value for key, value in given.items() if not isinstance(value, list)}
        for key, value in given.items():
            differs = isinstance(value, list) and len({str(entry) for entry in value}) > 1
            # A list of numbers of layers that happens to name them all is none by layer.
            if differs and len(value) == COUNT and value != list(range(COUNT)) and key not in RULED:
                yield made.model_type, key, value, plain


def config_classes() -> Iterator[type[Any]]:
    models = importlib.import_module("transformers.models")
    for package in pkgutil.iter_modules(models.__path__):
        try:
            module = importlib.import_module(
                f"transformers.models.{package.name}.configuration_{package.name}"
            )
        except ImportError:
            continue
        for _, config in inspect.getmembers(module, inspect.isclass):
            if (
                issubclass(config, transformers.PreTrainedConfig)
                and config.__module__ == module.__name__
            ):
                yield config
