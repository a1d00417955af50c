"""config.json of a Hugging Face checkpoint: what has to change when layers, rows or dtype do.

A stack of layers needs more than a new layer count. Configs say things layer by layer in lists
(Qwen3 `layer_types`; a list of the old length stops transformers from loading the result), or leave
them to the layer's number (Gemma 2 alternates), which a moved layer would get wrong: each output
layer takes its entry from the layer it came from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.names import quoted

Config: TypeAlias = dict[str, Any]

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 16 << 20
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Where models of several parts keep their language model's settings.
_LANGUAGE_MODELS = ("text_config", "llm_config", "language_config")
# Lists that are not about layers, however long they happen to be.
_NOT_BY_LAYER = ("architectures", "_token_id", "_token_ids", "_section", "_factor", "_size")
TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True)
class LayerOrigin:
    """Where a layer of the output comes from: a model's config, and the layer's number there."""

    config: Mapping[str, Any]
    layer: int


def parse_config(data: bytes, name: str = CONFIG_NAME) -> Config:
    """A config file's members. Raises MalformedFile naming `name`."""
    if len(data) > MAX_CONFIG_BYTES:
        raise MalformedFile(f"{quoted(name)} has {len(data)} bytes; that is no config")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"{quoted(name)} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise MalformedFile(f"{quoted(name)} is not a JSON object")
    return found


def layer_count(config: Mapping[str, Any]) -> int | None:
    """How many layers a config says its (language) model has; None if it does not say."""
    _, count = _counted(_language_model(config))
    return count


def restacked(config: Mapping[str, Any], origins: Sequence[LayerOrigin]) -> Config:
    """The config of a model made of these layers, bottom first; the rest as `config` has it.

    Raises MergeInputError if `config` has no layer count, or a layer is not in its model.
    """
    changed: Config = json.loads(json.dumps(config))
    part = _language_model(changed)
    key, count = _counted(part)
    if key is None or count is None:
        raise MergeInputError(
            "the base's config.json has no number of layers", "num_hidden_layers is missing"
        )
    if [origin.layer for origin in origins] == list(range(count)) and all(
        origin.config == config for origin in origins
    ):
        return changed
    for name in [name for name, value in part.items() if _by_layer(name, value, count)]:
        part[name] = [_entry(origin, name, part) for origin in origins]
    if "layer_types" not in part and _implied(part, 0) is not None:
        kinds = [_implied(_language_model(origin.config), origin.layer) for origin in origins]
        if None not in kinds:
            part["layer_types"] = kinds
    part[key] = len(origins)
    return changed


def amended(
    config: Mapping[str, Any], changes: Mapping[str, Any], dtype: str | None = None
) -> Config:
    """A config with other values, wherever it has the key; new ones beside the layer count.

    dtype  of the weights (`BF16`), as `dtype` or `torch_dtype`, whichever the config uses
    """
    changed: Config = json.loads(json.dumps(config))
    part = _language_model(changed)
    for key, value in changes.items():
        for home in [home for home in (changed, part) if key in home] or [part]:
            home[key] = value
    if dtype is not None and dtype in TORCH_NAMES:
        named = [
            (home, key) for home in (changed, part) for key in ("dtype", "torch_dtype")
            if key in home
        ]  # fmt: skip
        for home, key in named or [(changed, "torch_dtype")]:
            home[key] = TORCH_NAMES[dtype]
    return changed


def dump_config(config: Mapping[str, Any]) -> bytes:
    """As transformers writes it: two spaces, keys in their order, a newline at the end."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _language_model(config: Mapping[str, Any]) -> Config:
    """The part of a config that speaks of the layers: of a text model, all of it."""
    for name in _LANGUAGE_MODELS:
        part = config.get(name)
        if isinstance(part, dict) and _counted(part)[0] is not None:
            return part
    assert isinstance(config, dict)
    return config


def _counted(part: Mapping[str, Any]) -> tuple[str | None, int | None]:
    for key in _LAYER_COUNTS:
        count = part.get(key)
        if isinstance(count, int) and not isinstance(count, bool):
            return key, count
    return None, None


def _by_layer(name: str, value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and not name.endswith(_NOT_BY_LAYER)


def _entry(origin: LayerOrigin, name: str, fallback: Mapping[str, Any]) -> object:
    """What the layer's own model says of it; a model that says nothing: what the base says."""
    own = _language_model(origin.config).get(name)
    values = own if isinstance(own, list) else fallback[name]
    if not 0 <= origin.layer < len(values):
        raise MergeInputError(
            f"config.json's {name} has {len(values)} entries, and layer {origin.layer} is used"
        )
    return values[origin.layer]


def _implied(part: Mapping[str, Any], layer: int) -> str | None:
    """The kind of attention that a model gives a layer by its number; None if it does not."""
    given = part.get("layer_types")
    if isinstance(given, list):
        return given[layer] if layer < len(given) else None
    kind = part.get("model_type")
    if kind == "gemma2":
        return _FULL if layer % 2 else _SLIDING
    if kind in ("gemma3", "gemma3_text", "cohere2"):
        every = part.get("sliding_window_pattern", 4 if kind == "cohere2" else 6)
        return _SLIDING if isinstance(every, int) and (layer + 1) % every else _FULL
    if kind in ("qwen2", "qwen3") and part.get("use_sliding_window"):
        return _SLIDING if layer >= part.get("max_window_layers", 28) else _FULL
    return None
