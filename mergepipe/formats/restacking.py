"""config.json of a model whose layers were taken, repeated, dropped or interleaved.

A stack of layers needs more than a new layer count. Configs say things layer by layer in lists
(Qwen3 `layer_types`; a list of the old length stops transformers from loading the result), name
layers by number (`layer_numbers`), or leave what they are to the number alone (`implied_layers`):
each output layer is said to be what the layer that it came from was. Models of several parts have
their settings in several places, and some keys of the whole are about the layers of a part.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from mergepipe.errors import MergeInputError
from mergepipe.formats.config_json import (
    LANGUAGE_MODELS,
    LAYER_COUNTS,
    PREDICTING,
    Config,
    counted,
    language_model,
    predicting_layers,
)
from mergepipe.formats.implied_layers import implied, lists_of, unwritten
from mergepipe.formats.layer_numbers import OF_ANOTHER_MODEL, RULED, renumber
from mergepipe.formats.layer_rules import Heads, Layer, Unmoved, inexpressible, moved
from mergepipe.names import quoted

# Modules (formats.architecture) -> where their settings are.
_TOWERS = {
    "vision_tower": ("vision_config", "vit_config", "vision_tower_config", "visual"),
    "audio_tower": ("audio_config", "audio_encoder_config", "speech_config", "encoder_config"),
}
_TOWER_COUNTS = (*LAYER_COUNTS, "encoder_layers", "depth")
# Sides of an encoder-decoder -> the keys that count their layers.
_SIDES = {
    "encoder": ("encoder_layers", "num_encoder_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}
_SIDE_RULES = {
    "encoder": (Unmoved(("encoder_sparse_step", "num_sparse_encoder_layers")),),
    "decoder": (Unmoved(("decoder_sparse_step", "num_sparse_decoder_layers")), Heads()),
}
# A layer of the vision tower by its number; from the top (-2) it stays what it is.
_FEATURES = (
    "vision_feature_layer",
    "vision_select_layer",
    "mm_vision_select_layer",
    "select_layer",
)
# Lists that are not about layers, however long they happen to be.
_NOT_BY_LAYER = frozenset(
    (
        *("architectures", "time_step_limit", "keys_to_ignore_at_inference", "languages"),
        *("suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids", "alignment_heads"),
        *("depths", "num_heads", "hidden_sizes", "strides", "image_mean", "image_std", "cutoffs"),
        *OF_ANOTHER_MODEL,
        *("image_grid_pinpoints", "short_factor", "long_factor", "out_features", "stage_names"),
    )
)
_NOT_ENDINGS = ("_token_id", "_token_ids", "_token_index", "_section", "_factor", "_size", "_sizes")
_BY_LAYER_SIZES = ("intermediate_size", "moe_intermediate_size", "ffn_hidden_size", "num_kv_heads")
# Mappings whose lists are about frequencies, quantized modules or tasks, and no layers.
_NOT_WITHIN = (
    *("rope_scaling", "rope_parameters", "rope_theta", "quantization_config", "id2label"),
    *("label2id", "task_specific_params", "auto_map", "compression_config", "generation_config"),
)


class LayerOrigin(Struct, frozen=True):
    """Where a layer of the output comes from: a model's config, and the layer's number there."""

    config: Mapping[str, Any]
    layer: int


def restacked(
    config: Mapping[str, Any], origins: Sequence[LayerOrigin], *, predicting_apart: bool = False
) -> Config:
    """The config of a language model of these layers, bottom first; the rest as `config` has it.

    Layers that predict further tokens may follow the others, and are counted by themselves;
    predicting_apart: they are none of these layers, and stay (Qwen's `mtp.layers`).

    Raises MergeInputError: `config` has no layer count, a layer is not in its model, a key cannot
    say what is needed.
    """
    changed: Config = json.loads(json.dumps(config))
    part = language_model(changed)
    key, count = counted(part)
    if key is None or count is None:
        raise _uncounted("")
    predicting = predicting_layers(config)
    same = all(origin.config == config for origin in origins)
    if same and [origin.layer for origin in origins] in (
        list(range(count)),
        list(range(count + predicting)),
    ):
        return changed
    origins, more = _without_predicting(origins)
    more = predicting if predicting_apart else more
    if not origins:
        raise MergeInputError(
            "the result would have layers that predict further tokens, and no others",
            "give it layers of the model itself",
        )
    _check_deepstack(config, origins)
    # Some configs repeat their language model's settings on top (Qwen2-VL).
    homes = [part] if part is changed or counted(changed)[1] != count else [part, changed]
    for home in homes:
        layers = [
            Layer(_part(origin.config, twice=home is not part), origin.layer, _count(origin.config))
            for origin in origins
        ]
        _restack(home, layers, count, more=more)
        for name in PREDICTING:
            if name in home and more != predicting and predicting:
                home[name] = more
    return changed


def restacked_part(
    config: Mapping[str, Any], module: str, origins: Sequence[LayerOrigin]
) -> Config:
    """The config where another part than the language model is made of these layers.

    module  `encoder`, `decoder`, `vision_tower`, `audio_tower` (formats.architecture)

    Raises MergeInputError where the config has no number of layers for the part, or a key cannot
    say what is needed.
    """
    changed: Config = json.loads(json.dumps(config))
    numbers = [origin.layer for origin in origins]
    for name in _TOWERS.get(module, ()):
        part = changed.get(name)
        key = _tower_count(part)
        if isinstance(part, dict) and key is not None:
            layers = [_tower_layer(origin, name, key) for origin in origins]
            _restack(part, layers, part[key], key)
            if module == "vision_tower":
                _check_features(config, numbers, config[name][key])
            return changed
    if module in _SIDES:
        inside = changed.get(module)
        if isinstance(inside, dict):
            whole = [LayerOrigin(origin.config.get(module, {}), origin.layer) for origin in origins]
            changed[module] = restacked(inside, whole)
            return changed
        for name in ("", *LANGUAGE_MODELS):
            home = changed.get(name) if name else changed
            if isinstance(home, dict) and any(type(home.get(key)) is int for key in _SIDES[module]):
                parts = [
                    layer_origin.config.get(name, {}) if name else layer_origin.config
                    for layer_origin in origins
                ]
                _restack_side(home, module, numbers, parts)
                return changed
    raise _uncounted(module)


def has_part(config: Mapping[str, Any], module: str) -> bool:
    """Whether a config speaks of a part of this name as something beside the language model."""
    if any(_tower_count(config.get(name)) is not None for name in _TOWERS.get(module, ())):
        return True
    if module not in _SIDES:
        return False
    homes = [config, *(config.get(name) for name in LANGUAGE_MODELS)]
    sided = any(isinstance(home, Mapping) and _is_sided(home) for home in homes)
    return isinstance(config.get(module), Mapping) or sided


def _is_sided(home: Mapping[str, Any]) -> bool:
    keys = ("encoder_layers", "num_encoder_layers", "decoder_layers", "num_decoder_layers")
    return bool(home.get("is_encoder_decoder")) or any(key in home for key in keys)


def _restack(
    part: Config, layers: Sequence[Layer], count: int, key: str | None = None, more: int = 0
) -> None:
    """A part of a config with other layers.

    key   counts them, besides the usual keys
    more  how many layers that predict further tokens follow them
    """
    unknown = unwritten(part) if moved(layers, count) else ()
    if unknown:
        raise MergeInputError(
            f"config.json has no {quoted(unknown[0])}, and a model of type "
            f"{quoted(str(part.get('model_type')))} decides by the numbers of its layers what they "
            "are",
            "load the config once with transformers' AutoConfig, save it with save_pretrained, and "
            "commit that",
        )
    given = _lists(part, count)
    for layer in layers:
        if not 0 <= layer.number < max(layer.count, 1):
            raise MergeInputError(
                f"config.json counts {layer.count} layers, and layer {layer.number} is used"
            )
    wanted = {
        name: [implied(origin.part, name, origin.number, origin.count) for origin in layers]
        for name in lists_of(part)
        if not isinstance(part.get(name), list) or not part[name]
    }
    renumber(part, layers)
    for path in given:
        _at(part, path[:-1])[path[-1]] = _entries(layers, path, part, more)
    for name in LAYER_COUNTS:
        if part.get(name) == count and not isinstance(part[name], bool):
            part[name] = len(layers)
    if key is not None:
        part[key] = len(layers)
    if isinstance(part.get("pruned_heads"), dict):
        part["pruned_heads"] = {
            str(place): layer.part["pruned_heads"][str(layer.number)]
            for place, layer in enumerate(layers)
            if str(layer.number) in (layer.part.get("pruned_heads") or {})
        }
    _write_down(part, wanted, len(layers))


def _write_down(part: Config, wanted: Mapping[str, Sequence[Any]], count: int) -> None:
    """Lists of what was implied, where other numbers imply something else."""
    for name, entries in wanted.items():
        if list(entries) != [implied(part, name, number, count) for number in range(count)]:
            if None in entries:
                raise inexpressible(name, list(entries).index(None))
            part[name] = list(entries)


def _lists(part: Mapping[str, Any], count: int) -> list[tuple[str, ...]]:
    """Where a part has a list, or text, with an entry per layer; in mappings inside as well."""
    paths: list[tuple[str, ...]] = []
    for name, value in part.items():
        if isinstance(value, Mapping) and name not in _NOT_WITHIN and not name.endswith("_config"):
            paths += [(name, *path) for path in _lists(value, count)]
        elif (
            isinstance(value, list)
            and (
                (len(value) == count and _by_layer(name)) or _padded(part, name, len(value), count)
            )
        ) or (isinstance(value, str) and len(value) == count and name.endswith("override_pattern")):
            paths.append((name,))
    return paths


def _padded(part: Mapping[str, Any], name: str, length: int, count: int) -> bool:
    """Whether a list goes on with the layers that predict further tokens."""
    more = [part[key] for key in PREDICTING if type(part.get(key)) is int and part[key] > 0]
    return bool(more) and length == count + more[0] and name.endswith(("_types", "_type"))


def _by_layer(name: str) -> bool:
    if name in RULED:
        # Of these, only lists that may also be given by layer.
        return name == "sliding_window_pattern"
    if name in _BY_LAYER_SIZES:
        return True
    return (
        name not in _NOT_BY_LAYER
        and not name.endswith(_NOT_ENDINGS)
        and not name.startswith("mtp_")
    )


def _entries(layers: Sequence[Layer], path: tuple[str, ...], part: Config, more: int = 0) -> Any:
    """What each layer's own model says of it; a model that says nothing: what the base says."""
    fallback = _at(part, path[:-1])[path[-1]]
    entries = []
    for layer in layers:
        own = _found(layer.part, path)
        if isinstance(own, list | str) and type(own) is type(fallback):
            values = own
        else:
            kind = implied(layer.part, path[-1], layer.number, layer.count)
            values = fallback if kind is None else [kind] * (layer.number + 1)
        if layer.number >= len(values):
            raise MergeInputError(
                f"config.json's {'.'.join(path)} has {len(values)} entries, and layer "
                f"{layer.number} is used"
            )
        entries.append(values[layer.number])
    if isinstance(fallback, str):
        return "".join(entries)
    # Lists may go on with the layers that predict further tokens, as many as are left.
    return [*entries, *fallback[layers[0].count : layers[0].count + more]]


def _at(part: Config, path: Sequence[str]) -> Config:
    for name in path:
        part = part[name]
    return part


def _found(part: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = part
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _part(config: Mapping[str, Any], *, twice: bool) -> Mapping[str, Any]:
    """A model's settings for its layers; `twice`: those on top, if they are there as well."""
    part = language_model(config)
    return config if twice and counted(config)[0] is not None else part


def _count(config: Mapping[str, Any]) -> int:
    return counted(language_model(config))[1] or 0


def _without_predicting(origins: Sequence[LayerOrigin]) -> tuple[Sequence[LayerOrigin], int]:
    """The layers of the model itself, and how many that predict further tokens follow them."""
    extra = [origin.layer - _count(origin.config) for origin in origins]
    count = next((place for place, number in enumerate(extra) if number >= 0), len(extra))
    if extra[count:] != list(range(len(extra) - count)):
        raise MergeInputError(
            "config.json counts layers that predict further tokens (num_nextn_predict_layers), and "
            "in the result they would not be the last ones",
            "end the last slice with them, or leave them out of every slice",
        )
    return origins[:count], len(extra) - count


def _check_deepstack(config: Mapping[str, Any], origins: Sequence[LayerOrigin]) -> None:
    """Qwen3-VL adds what its vision tower saw on the way to the first layers of the text."""
    for name in _TOWERS["vision_tower"]:
        tower = config.get(name)
        levels = tower.get("deepstack_visual_indexes") if isinstance(tower, Mapping) else None
        for place in range(len(levels) if isinstance(levels, list) else 0):
            if place >= len(origins) or origins[place].layer != place:
                raise MergeInputError(
                    f"config.json's 'deepstack_visual_indexes' adds pictures to the first "
                    f"{len(levels or ())} layers, and layer {place} of the result is another",
                    "begin the first slice with these layers",
                )


def _check_features(config: Mapping[str, Any], numbers: Sequence[int], count: int) -> None:
    for key in _FEATURES:
        value = config.get(key)
        chosen = value if isinstance(value, list) else [value]
        layers = [layer for layer in chosen if type(layer) is int and layer >= 0]
        if layers and list(numbers) != list(range(count)):
            raise MergeInputError(
                f"config.json's {quoted(key)} chooses layer {layers[0]} of the vision tower, which "
                "would be another",
                "take the module's layers from one model, all of them, or count from the top (-2)",
            )


def _tower_count(part: object) -> str | None:
    if not isinstance(part, Mapping):
        return None
    return next((key for key in _TOWER_COUNTS if type(part.get(key)) is int), None)


def _tower_layer(origin: LayerOrigin, name: str, key: str) -> Layer:
    part = origin.config.get(name)
    part = part if isinstance(part, Mapping) else {}
    return Layer(part, origin.layer, part.get(_tower_count(part) or key) or origin.layer + 1)


def _restack_side(
    home: Config, module: str, numbers: Sequence[int], parts: Sequence[Mapping[str, Any]]
) -> None:
    key = next(key for key in _SIDES[module] if type(home.get(key)) is int)
    count: int = home[key]
    layers = [Layer(part, number, count) for part, number in zip(parts, numbers, strict=True)]
    if moved(layers, count):
        for rule in _SIDE_RULES[module]:
            rule.follow(home, layers)
    windows = home.get("attention_window")
    if module == "encoder" and isinstance(windows, list) and len(windows) == count:
        home["attention_window"] = _entries(layers, ("attention_window",), home)
    # A decoder that says nothing of its layers has as many as the encoder (T5).
    if key == "num_layers" and home.get("num_decoder_layers") is None:
        home["num_decoder_layers"] = count
    home[key] = len(numbers)
    if key == "encoder_layers" and home.get("num_hidden_layers") == count:
        home["num_hidden_layers"] = len(numbers)


def _uncounted(module: str) -> MergeInputError:
    if not module:
        return MergeInputError(
            "the base's config.json has no number of layers", "num_hidden_layers is missing"
        )
    return MergeInputError(
        f"config.json has no number of layers for module {quoted(module)}, and the recipe changes "
        "them",
        "take the module's layers from one model, all of them",
    )
