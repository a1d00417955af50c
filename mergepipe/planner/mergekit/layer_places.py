"""Layers that an architecture makes otherwise because of their place, which no config speaks of.

The first layer of a T5 holds the position biases of all, the first of a ModernBERT lacks a norm. A
stack is refused where such a layer would stand elsewhere: transformers would make up what is
missing there, or leave out what is there. Known by the tensors: two layers that the config says the
same of, and that have others.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import Section
from mergepipe.formats.restacking import LayerOrigin
from mergepipe.names import quoted
from mergepipe.planner.mergekit.inventory import Inventory

# The config of these layers.
Restack = Callable[[Sequence[LayerOrigin]], Mapping[str, Any]]


def check_places(
    reference: Inventory,
    module: str,
    origins: Sequence[LayerOrigin],
    keys: Sequence[frozenset[str]],
    restack: Restack,
) -> None:
    """Refuse layers that would stand where their architecture makes another kind.

    keys  the tensors of each layer of the result, as they are called in every layer

    Raises MergeInputError naming a tensor.
    """
    held = [
        frozenset(reference.section(module, Section.LAYER, layer))
        for layer in range(reference.layers(module))
    ]
    if len(set(held)) < 2 or list(keys) == held or reference.config is None:
        return
    said = [_said(restack, LayerOrigin(reference.config, layer)) for layer in range(len(held))]
    kinds: dict[str, set[frozenset[str]]] = defaultdict(set)
    for sentence, kind in zip(said, held, strict=True):
        kinds[sentence].add(kind)
    for place, (origin, key) in enumerate(zip(origins, keys, strict=True)):
        sentence = _said(restack, origin)
        if len(kinds[sentence]) < 2:
            continue
        alike = [layer for layer, other in enumerate(said) if other == sentence]
        # Past the layers that there were, a place is like the last of them.
        expected = held[place] if place in alike else held[alike[-1]]
        if key != expected:
            raise _misplaced(module, place, key, expected)


def _said(restack: Restack, origin: LayerOrigin) -> str:
    """What a config says of a layer: that of a model which has no other."""
    try:
        return json.dumps(restack([origin]), sort_keys=True)
    except MergeInputError:
        return f"only layer {origin.layer} is like that"


def _misplaced(
    module: str, place: int, keys: frozenset[str], expected: frozenset[str]
) -> MergeInputError:
    missing = sorted(expected - keys)
    name = missing[0] if missing else min(keys - expected)
    what = "would lack" if missing else "would have"
    return MergeInputError(
        f"layer {place} of the result's module {quoted(module)} {what} {quoted(name)}, which the "
        "architecture gives to some layers by their place",
        "keep the first layer first, and use it nowhere else",
    )
