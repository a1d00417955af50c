"""The ways in which keys of a config.json speak of layers, each brought to other numbers.

A rule changes its keys to say of every layer what the layer's own model says of it.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from mergepipe.errors import MergeInputError
from mergepipe.formats.config_json import CONFIG_NAME
from mergepipe.formats.implied_layers import IMPLIED
from mergepipe.names import quoted


class Layer(Struct, frozen=True):
    """A layer by its origin: the part of a config that speaks of it, its number, their count."""

    part: Mapping[str, Any]
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """What becomes of some keys, in a stack of other layers."""

    keys: tuple[str, ...]

    def follow(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        """Change `part`, a copy of the reference's, to say of these layers what theirs say.

        Raises MergeInputError naming the key that cannot.
        """
        self._bring(part, layers)

    @abstractmethod
    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None: ...


def moved(layers: Sequence[Layer], count: int) -> bool:
    """Whether the layers are others than those of a model of `count`, or in another order."""
    return [layer.number for layer in layers] != list(range(count))


@dataclass(frozen=True, slots=True)
class Numbers(Rule):
    """Lists of the numbers of those layers that something is true of; also as text ("3,4,5").

    first   the number that the first layer has in them
    within  the key of the mapping that they are in
    """

    first: int = 0
    within: str | None = None

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        home = part if self.within is None else part.get(self.within)
        if not isinstance(home, dict):
            return
        for key in self.keys:
            value = home.get(key)
            if not isinstance(value, list | str) or not (value or self._any(key, layers)):
                continue
            numbers = [
                place + self.first
                for place, layer in enumerate(layers)
                if layer.number + self.first in self.of(layer.part, key)
            ]
            home[key] = ",".join(map(str, numbers)) if isinstance(value, str) else numbers

    def _any(self, key: str, layers: Sequence[Layer]) -> bool:
        return any(self.of(layer.part, key) for layer in layers)

    def of(self, part: Mapping[str, Any], key: str) -> Sequence[int]:
        """The numbers in a list. Raises MergeInputError for a list of anything else."""
        home = part if self.within is None else part.get(self.within)
        value = home.get(key) if isinstance(home, Mapping) else None
        if isinstance(value, str):
            value = [int(text) for text in value.split(",") if text.strip().isdecimal()]
        if not isinstance(value, list):
            return ()
        counts = [number for number in value if type(number) is int]
        if len(counts) != len(value) or any(number < 0 for number in counts):
            raise MergeInputError(
                f"config.json's {key} is no list of numbers of layers", "correct the config.json"
            )
        return counts


@dataclass(frozen=True, slots=True)
class First(Rule):
    """So many layers at the bottom are otherwise."""

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            if type(part.get(key)) is int:
                said = [layer.number < whole(layer.part, key, 0) for layer in layers]
                part[key] = _leading(key, said)


@dataclass(frozen=True, slots=True)
class Period(Rule):
    """One of so many layers is otherwise, the first of them at an offset (Jamba)."""

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        every = part.get(self.keys[0])
        if type(every) is not int or every < 1:
            return
        said = [self._hits(layer) for layer in layers]
        hits = [place for place, holds in enumerate(said) if holds]
        start = whole(part, self.keys[1], 0)
        offset = hits[0] if hits else len(said)
        between = hits[1] - hits[0] if len(hits) > 1 else len(said) + 1
        # As it was where that says it; else so that it does.
        for period, first in ((every, start), (every, offset), (between, offset)):
            if said == [place % period == first for place in range(len(said))]:
                part[self.keys[0]], part[self.keys[1]] = period, first
                return
        wrong = [place % between == offset for place in range(len(said))]
        place = next(place for place, holds in enumerate(said) if holds != wrong[place])
        raise inexpressible(self.keys[0], place)

    def _hits(self, layer: Layer) -> bool:
        every = whole(layer.part, self.keys[0], 1)
        return layer.number % max(every, 1) == whole(layer.part, self.keys[1], 0)


@dataclass(frozen=True, slots=True)
class Repeated(Rule):
    """A pattern that is repeated over the layers (Recurrent Gemma), later in its whole length."""

    keys: tuple[str, ...] = ("block_types",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            pattern = part.get(key)
            if isinstance(pattern, list) and pattern:
                patterns = [layer.part.get(key) or pattern for layer in layers]
                part[key] = [
                    kinds[layer.number % len(kinds)]
                    for kinds, layer in zip(patterns, layers, strict=True)
                ]


@dataclass(frozen=True, slots=True)
class Groups(Rule):
    """GPT Neo: kinds of attention, and how often they are repeated."""

    keys: tuple[str, ...] = ("attention_types",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        key = self.keys[0]
        if not isinstance(part.get(key), list):
            return
        kinds = []
        for layer in layers:
            try:
                spread = [
                    kind for group, times in layer.part[key] for _ in range(times) for kind in group
                ]
                kinds.append(spread[layer.number])
            except (KeyError, TypeError, ValueError, IndexError):
                raise MergeInputError(
                    f"config.json's {key} does not say what layer {layer.number} is",
                    "correct the config.json",
                ) from None
        part[key] = [[kinds, 1]]


@dataclass(frozen=True, slots=True)
class PerDepth(Rule):
    """MiniCPM multiplies what layers add by this over the root of their number."""

    keys: tuple[str, ...] = ("scale_depth",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        key = self.keys[0]
        if not isinstance(part.get(key), int | float) or isinstance(part[key], bool):
            return
        scales = {_number(layer.part, key) / math.sqrt(layer.count) for layer in layers}
        if len(scales) > 1:
            raise inexpressible(key, len(layers) - 1)
        count = layers[0].count
        if count != len(layers):
            part[key] = _number(layers[0].part, key) * math.sqrt(len(layers) / count)


@dataclass(frozen=True, slots=True)
class Shifted(Rule):
    """Every so many layers one is otherwise; which of them, only the model's own code says.

    instead  a list that says the same, and is all that counts where it is given
    """

    instead: str | None = None

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        every = part.get(self.keys[0])
        if type(every) is not int or every < 2:
            return
        if self.instead is not None and (
            isinstance(part.get(self.instead), list)
            or str(part.get("model_type")) in IMPLIED.get(self.instead, {})
        ):
            return
        for place, layer in enumerate(layers):
            if layer.part.get(self.keys[0]) != every or (place - layer.number) % every:
                raise inexpressible(self.keys[0], place)


@dataclass(frozen=True, slots=True)
class Unmoved(Rule):
    """They count from the top, or mean layers in another way: only the same layers keep them."""

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            if not part.get(key):
                continue
            for place, layer in enumerate(layers):
                if (
                    len(layers) != layer.count
                    or layer.number != place
                    or layer.part.get(key) != part[key]
                ):
                    raise inexpressible(key, min(place, len(layers) - 1))


@dataclass(frozen=True, slots=True)
class Heads(Rule):
    """Pairs of a layer's number and a head of it; without the key where no such layer is left."""

    keys: tuple[str, ...] = ("alignment_heads",)
    file: str = CONFIG_NAME

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            given = part.get(key)
            if not isinstance(given, list):
                continue
            heads = []
            for place, layer in enumerate(layers):
                listed = layer.part.get(key)
                pairs = self._pairs(key, listed if isinstance(listed, list) else given)
                heads += [[place, head] for number, head in pairs if number == layer.number]
            if heads:
                part[key] = heads
            else:
                # Whisper says that it has none where they are needed; of an empty list it fails.
                del part[key]

    def _pairs(self, key: str, pairs: Sequence[Any]) -> Sequence[Any]:
        for pair in pairs:
            if not isinstance(pair, list) or [type(number) for number in pair] != [int, int]:
                raise MergeInputError(
                    f"{self.file}'s {quoted(key)} is no list of pairs [layer, head]",
                    f"correct the {self.file}",
                )
        return pairs


@dataclass(frozen=True, slots=True)
class Pinned(Rule):
    """Keys that seem to name layers, in a way not known here: these and all below have to stay.

    pattern  of such keys, in mappings inside as well
    apart    keys that are something else
    """

    keys: tuple[str, ...] = ()
    pattern: re.Pattern[str] = re.compile("$^")
    apart: frozenset[str] = frozenset()
    file: str = CONFIG_NAME

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        if not moved(layers, max(layer.count for layer in layers)):
            return
        # So many at the bottom are where they were.
        kept = next(
            (place for place, layer in enumerate(layers) if layer.number != place), len(layers)
        )
        for key, number in self._named(part):
            if not 0 <= number < kept:
                raise MergeInputError(
                    f"{self.file}'s {quoted(key)} names layer {number}, and the result's layers up "
                    "to that are others",
                    f"keep the layers up to it where they are, or take {quoted(key)} out of the "
                    f"model's {self.file} if the result does not need it",
                )

    def _named(self, part: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        """Keys, and the numbers in them."""
        for key, value in part.items():
            if isinstance(value, Mapping):
                if not key.endswith("_config"):
                    yield from self._named(value)
            elif key not in self.apart and self.pattern.search(key):
                for number in value if isinstance(value, list) else [value]:
                    if type(number) is int:
                        yield key, number


@dataclass(frozen=True, slots=True)
class Stages(Rule):
    """Backbones give what comes after some of their layers; nearly all after the last alone."""

    keys: tuple[str, ...] = ("out_indices", "out_features", "stage_names")

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        count = layers[0].count
        if not part.get(self.keys[0]) and not part.get(self.keys[1]):
            return
        last = part.get(self.keys[0]) in (None, [count], [-1])
        last = last and part.get(self.keys[1]) in (None, [f"stage{count}"])
        if moved(layers, count) and not last:
            raise inexpressible(self.keys[0], 0)
        if part.get(self.keys[0]) == [count]:
            part[self.keys[0]] = [len(layers)]
        if part.get(self.keys[1]):
            part[self.keys[1]] = [f"stage{len(layers)}"]
        if isinstance(part.get(self.keys[2]), list):
            part[self.keys[2]] = ["stem", *(f"stage{stage + 1}" for stage in range(len(layers)))]


@dataclass(frozen=True, slots=True)
class OfType(Rule):
    """Models that compute with a layer's number, or with the count of them, whatever they hold.

    numbers, counts  the model types
    """

    keys: tuple[str, ...] = ("model_type",)
    numbers: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        kind = part.get(self.keys[0])
        for place, layer in enumerate(layers):
            elsewhere = kind in self.numbers and layer.number != place
            if elsewhere or (kind in self.counts and layer.count != len(layers)):
                raise MergeInputError(
                    f"layers of a model of type {quoted(str(kind))} (config.json's 'model_type') "
                    f"compute with their number, and layer {layer.number} would be layer {place} "
                    f"of {len(layers)}",
                    "merge whole models",
                )


def inexpressible(key: str, place: int) -> MergeInputError:
    """The error for a key that cannot say what a layer of the result was."""
    return MergeInputError(
        f"config.json's {quoted(key)} cannot say of layer {place} of the result what the model "
        "that it comes from says of it",
        "choose slices that keep the pattern of the layers, or whole models",
    )


def _leading(key: str, said: Sequence[bool]) -> int:
    """How many layers at the bottom are of the first kind, if no other is."""
    count = sum(said)
    if not all(said[:count]):
        raise inexpressible(key, said.index(False))
    return count


def whole(part: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number of a config; what is none counts as not given."""
    value = part.get(key, default)
    return value if type(value) is int else default


def _number(part: Mapping[str, Any], key: str) -> float:
    value = part.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
