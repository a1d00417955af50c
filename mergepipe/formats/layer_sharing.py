"""Keys of a config.json by which layers take something from others: keys and values, an index.

Such a layer is only what it was while the layer that it takes from is the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergepipe.formats.implied_layers import implied
from mergepipe.formats.layer_rules import Layer, Rule, inexpressible, whole


@dataclass(frozen=True, slots=True)
class SharedAtTop(Rule):
    """So many layers at the top take keys and values of the last one of their kind below them."""

    keys: tuple[str, ...] = ("num_kv_shared_layers",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        key = self.keys[0]
        if type(part.get(key)) is not int:
            return
        first = [layer.count - whole(layer.part, key, 0) for layer in layers]
        shared = [layer.number >= one for layer, one in zip(layers, first, strict=True)]
        own = shared.index(True) if True in shared else len(shared)
        if not all(shared[own:]):
            raise inexpressible(key, own + shared[own:].index(False))
        for place in range(own, len(shared)):
            layer = layers[place]
            kind = implied(layer.part, "layer_types", layer.number, layer.count)
            below = [one for one in layers[:own] if _kind(one) == kind]
            lenders = [
                number
                for number in range(first[place])
                if implied(layer.part, "layer_types", number, layer.count) == kind
            ]
            if (
                not below
                or not lenders
                or below[-1].number != lenders[-1]
                or not _same(below[-1], layer)
            ):
                raise inexpressible(key, place)
        part[key] = len(shared) - own


@dataclass(frozen=True, slots=True)
class Sources(Rule):
    """Lists of the layers that each layer takes something from: itself, or one below."""

    keys: tuple[str, ...] = ("kv_source_layers",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            if not isinstance(part.get(key), list):
                continue
            sources = []
            for place, layer in enumerate(layers):
                listed = layer.part.get(key)
                source = listed[layer.number] if isinstance(listed, list) else layer.number
                below = [
                    number
                    for number in range(place + 1)
                    if layers[number].number == source and _same(layers[number], layer)
                ]
                if not below:
                    raise inexpressible(key, place)
                sources.append(below[-1])
            part[key] = sources


@dataclass(frozen=True, slots=True)
class SharedFromBelow(Rule):
    """Lists where `shared` means: what the next layer below that is not shared has made."""

    keys: tuple[str, ...] = ("indexer_types",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        for key in self.keys:
            for place, layer in enumerate(layers):
                listed = layer.part.get(key)
                if not isinstance(listed, list) or listed[layer.number] != "shared":
                    continue
                lender = max(
                    (number for number in range(layer.number) if listed[number] != "shared"),
                    default=-1,
                )
                below = [
                    layer_below
                    for layer_below in layers[:place]
                    if layer_below.part.get(key, [])[layer_below.number] != "shared"
                ]
                if not below or below[-1].number != lender or not _same(below[-1], layer):
                    raise inexpressible(key, place)


def _kind(layer: Layer) -> Any:
    return implied(layer.part, "layer_types", layer.number, layer.count)


def _same(one: Layer, other: Layer) -> bool:
    """Whether two layers come from one model, as far as its config tells."""
    return one.part is other.part or one.part == other.part
