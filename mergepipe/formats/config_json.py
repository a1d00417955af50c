"""config.json of a Hugging Face checkpoint: reading it, and what changes when rows or dtype do.

What a stack of layers needs is in `restacking`.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from mergepipe.errors import MalformedFile
from mergepipe.names import quoted

Config: TypeAlias = dict[str, Any]

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 16 << 20
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_transformer_layers")
# Where models of several parts keep their language model's settings.
LANGUAGE_MODELS = ("text_config", "llm_config", "language_config")
# Layers that predict further tokens (multi-token prediction) come after those that are counted.
PREDICTING = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def parse_config(data: bytes, name: str = CONFIG_NAME) -> Config:
    """A config file's members. Raises MalformedFile naming `name`."""
    if len(data) > MAX_CONFIG_BYTES:
        raise MalformedFile(f"{quoted(name)} has {len(data)} bytes; that is no config")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"{quoted(name)} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedFile(f"{quoted(name)} is not a JSON object")
    return document


def layer_count(config: Mapping[str, Any]) -> int | None:
    """How many layers a config says its (language) model has; None if it does not say."""
    _, count = counted(language_model(config))
    return count


def predicting_layers(config: Mapping[str, Any]) -> int:
    """How many layers that predict further tokens follow those that `layer_count` counts."""
    part = language_model(config)
    counts = [part[key] for key in PREDICTING if type(part.get(key)) is int and part[key] > 0]
    return counts[0] if counts else 0


def amended(
    config: Mapping[str, Any], changes: Mapping[str, Any], dtype: str | None = None
) -> Config:
    """A config with other values, wherever it has the key; new ones beside the layer count.

    dtype  of the weights (`BF16`), as `dtype` or `torch_dtype`, whichever the config uses
    """
    changed: Config = json.loads(json.dumps(config))
    part = language_model(changed)
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


def language_model(config: Mapping[str, Any]) -> Config:
    """The part of a config that speaks of the layers: of a text model, all of it."""
    for name in LANGUAGE_MODELS:
        part = config.get(name)
        if isinstance(part, dict) and counted(part)[0] is not None:
            return part
    assert isinstance(config, dict)
    return config


def counted(part: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """The key that counts the layers of a part of a config, and its value; None without one."""
    for key in LAYER_COUNTS:
        count = part.get(key)
        if isinstance(count, int) and not isinstance(count, bool):
            return key, count
    return None, None
