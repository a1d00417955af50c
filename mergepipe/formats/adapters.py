"""LoRA adapters as PEFT saves them: what each of their tensors does to the model under them.

    adapter_config.json        rank, alpha, patterns, flags
    adapter_model.safetensors  base_model.model.<module>.lora_A.weight (r x in), .lora_B.weight
                               (out x r), .lora_embedding_A (r x rows), .lora_embedding_B
                               (columns x r); whole tensors (`modules_to_save`, trained biases)
                               under their own names

The change of a weight is scale * (B @ A), transposed for embeddings and for layers that keep their
weight as (in, out). scale is alpha / r, or alpha / sqrt(r) with `use_rslora`. Hu et al., "LoRA",
2021; Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023. Nothing here reads a weight.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt

import msgspec

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.names import quoted

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 4 << 20
_PREFIX = "base_model.model."
_EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")
_LINEAR = (".lora_A.weight", ".lora_B.weight")
# Ways to begin that put the difference from a *changed* base into the adapter.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")

# Regular expressions of others can take for ever: names, `.`, `.*`, `\\d+` and `[0-9]` do not.
_SIMPLE = re.compile(r"(?:[A-Za-z0-9_-]|\\\.|\.\*?|\\d\+?|\[[0-9-]+\]\+?)*")
_LONGEST_PATTERN = 200

Shape = tuple[int, ...]


class _Config(msgspec.Struct):
    """What we read of an adapter's config; other members are skipped."""

    peft_type: str = ""
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str | None = True
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    target_parameters: list[str] | None = None
    base_model_name_or_path: str | None = None


@dataclass(frozen=True, slots=True)
class LowRankChange:
    """scale * up @ down, by the names of the adapter's tensors: up is (rows, r), down (r, columns).

    transposed  up and down were saved the other way round: the change is scale * (up @ down)^T
    """

    up: str
    down: str
    scale: float
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter does, by the names of the model's tensors.

    changes   low-rank changes; of what `replaced` puts there, where a tensor is in both
    replaced  tensors that are the adapter's own: name of the model's -> name of the adapter's
    """

    changes: Mapping[str, LowRankChange]
    replaced: Mapping[str, str]
    trained_on: str | None = None


def is_adapter(paths: Iterable[str]) -> bool:
    """Whether a directory with these files holds an adapter rather than a model."""
    return ADAPTER_CONFIG in set(paths)


def read_adapter(
    config: bytes, tensors: Mapping[str, Shape], model: Mapping[str, Shape], label: str
) -> Adapter:
    """What an adapter does to a model.

    tensors, model  names and shapes of the adapter's tensors and of the model's

    Raises MalformedFile for a config that is none, MergeInputError naming `label` and the tensor
    for kinds of adapter that are no plain LoRA, and where adapter and model do not fit.
    """
    settings = _parse(config, label)
    _refuse_other_kinds(settings, label)
    changes: dict[str, LowRankChange] = {}
    replaced: dict[str, str] = {}
    for name in sorted(tensors):
        module, down, up = _factor_names(name)
        if module is None:
            target = _target(name.removeprefix(_PREFIX), model)
            if target is None and _is_tied_head(name, model):
                continue
            _check_whole(label, name, tensors[name], target, model)
            assert target is not None
            replaced[target] = name
        elif name == down:
            target = _target(f"{module}.weight", model)
            if target is None:
                raise _misfit(label, name, "the model has no such weight")
            if up not in tensors:
                raise _misfit(label, name, f"{quoted(up)} is missing")
            changes[target] = _change(
                settings, label, module, (down, tensors[down]), (up, tensors[up]), model[target]
            )
        elif down not in tensors:
            raise _misfit(label, name, f"{quoted(down)} is missing")
    if not changes and not replaced:
        raise MergeInputError(f"{quoted(label)} is an adapter that changes nothing")
    return Adapter(changes, replaced, settings.base_model_name_or_path)


def _parse(config: bytes, label: str) -> _Config:
    if len(config) > MAX_CONFIG_BYTES:
        raise MalformedFile(f"{ADAPTER_CONFIG} of {quoted(label)} has {len(config)} bytes")
    try:
        return msgspec.json.decode(config, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFile(f"{ADAPTER_CONFIG} of {quoted(label)}: {error}") from error


def _refuse_other_kinds(settings: _Config, label: str) -> None:
    what = None
    if settings.peft_type.upper() != "LORA":
        what = f"of type {quoted(settings.peft_type or 'unknown')}, not LORA"
    elif settings.use_dora:
        what = "a DoRA, which is not a low-rank change"
    elif settings.target_parameters:
        what = "one of whole parameters (target_parameters)"
    elif isinstance(settings.init_lora_weights, str) and settings.init_lora_weights.startswith(
        _CHANGES_BASE
    ):
        what = (
            f"begun by {settings.init_lora_weights}, so that it changes a base that was changed too"
        )
    if what is not None:
        raise MergeInputError(
            f"the adapter {quoted(label)} is {what}",
            "merge it into its model with peft (merge_and_unload), and commit the result",
        )


def _factor_names(name: str) -> tuple[str | None, str, str]:
    """The module that a factor is about, and the names of its down and up factor."""
    for down, up in (_LINEAR, _EMBEDDING):
        for suffix in (down, up):
            if name.endswith(suffix):
                stem = name.removesuffix(suffix)
                return stem.removeprefix(_PREFIX), stem + down, stem + up
    return None, "", ""


def _target(name: str, model: Mapping[str, Shape]) -> str | None:
    """The model's tensor that an adapter's tensor is about.

    A checkpoint of the bare model lacks the prefix that the model the adapter was trained on had,
    or has one more: then the one tensor that ends alike.
    """
    name = name.replace(".modules_to_save.default", "").replace(".base_layer", "")
    if name in model:
        return name
    shorter = name.partition(".")[2]
    if shorter and shorter in model:
        return shorter
    longer = [one for one in model if one.endswith("." + name)]
    return longer[0] if len(longer) == 1 else None


def _is_tied_head(name: str, model: Mapping[str, Shape]) -> bool:
    """Whether this is a copy of the embeddings, saved for a model that shares them."""
    return name.endswith("lm_head.weight") and not any(
        one.endswith("lm_head.weight") for one in model
    )


def _check_whole(
    label: str, name: str, shape: Shape, target: str | None, model: Mapping[str, Shape]
) -> None:
    if ".lora_" in name:
        raise _misfit(label, name, "this is no factor of a plain LoRA")
    if target is None:
        raise _misfit(label, name, "the model has no such tensor")
    if shape != model[target]:
        raise _misfit(label, name, f"its shape is {list(shape)}, the model's {list(model[target])}")


def _change(
    settings: _Config,
    label: str,
    module: str,
    down: tuple[str, Shape],
    up: tuple[str, Shape],
    weight: Shape,
) -> LowRankChange:
    if len(weight) != 2 or len(down[1]) != 2 or len(up[1]) != 2 or down[1][0] != up[1][1]:
        raise _misfit(
            label, down[0], f"{list(up[1])} times {list(down[1])} is no change of {list(weight)}"
        )
    rank = down[1][0]
    if not rank:
        raise _misfit(label, down[0], "its rank is 0")
    alpha = _by_pattern(settings.alpha_pattern, module, settings.lora_alpha, label)
    made, turned = (up[1][0], down[1][1]), (down[1][1], up[1][0])
    wants_turned = settings.fan_in_fan_out or down[0].endswith(_EMBEDDING[0])
    transposed = turned == weight and (wants_turned or made != weight)
    if not transposed and made != weight:
        raise _misfit(
            label, down[0], f"it is a change of {list(made)}, and the weight is {list(weight)}"
        )
    scale = alpha / (sqrt(rank) if settings.use_rslora else rank)
    return LowRankChange(up[0], down[0], scale, transposed)


def _by_pattern(
    patterns: Mapping[str, float] | None, module: str, default: float, label: str
) -> float:
    """The value of the first pattern that a module's name ends with, as PEFT matches them."""
    for pattern, value in (patterns or {}).items():
        if module.endswith("." + pattern) or _matcher(pattern, label).fullmatch(module):
            return value
    return default


@cache
def _matcher(pattern: str, label: str) -> re.Pattern[str]:
    """PEFT's match of a pattern, for the regular expressions that cannot run away."""
    rest = pattern.removeprefix("^").removesuffix("$")
    anchored = "" if pattern.startswith("^") else r"(?:.*\.)?"
    if len(pattern) > _LONGEST_PATTERN or not _SIMPLE.fullmatch(rest):
        raise MergeInputError(
            f"alpha_pattern of the adapter {quoted(label)}: {quoted(pattern)} is not understood",
            "names with `.*` and `\\d+` in them are; merge the adapter with peft otherwise",
        )
    return re.compile(anchored + rest)


def _misfit(label: str, tensor: str, problem: str) -> MergeInputError:
    return MergeInputError(
        f"the adapter {quoted(label)} does not fit: tensor {quoted(tensor)}: {problem}",
        "name the model that it was trained on, as in model+adapter",
    )
