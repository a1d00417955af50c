"""A config merged in float64 numpy, from what the page on recipes says, sharing no code with ours.

Formulas are those of tests/methods (themselves written from the papers and from mergekit's text);
here is what a document means: which tensors go in where, with which parameters.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tests.compat.formulas import NEEDS_BASE, merge_terms
from tests.compat.zoo import Family
from tests.compat.zoo_models import Model, untie

Document = Mapping[str, Any]
# A bound on the weights and factors that zoo_configs.py draws, taken together.
WEIGHTS = 4
TEXT_COUNT = "text_config.num_hidden_layers"
DECIDING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl", "nearswap")
NUMBERED = re.compile(r"\d+")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight")
HEADS = ("lm_head.weight", "cls.predictions.decoder.weight", "proj_out.weight")


class Refused(Exception):
    """A config that describes no model that transformers could load."""


@dataclass(frozen=True)
class Merged:
    """A merge's result: exact values, and per element how far rounding may go, or that a
    threshold decides."""

    model: Model
    magnitude: Mapping[str, np.ndarray]
    doubtful: Mapping[str, np.ndarray]
    loose: Mapping[str, np.ndarray]
    inputs: int


@dataclass(frozen=True)
class Source:
    """A model in a slice: where its layers begin, and its own parameters."""

    name: str
    begin: int
    parameters: Document


@dataclass(frozen=True)
class Slice:
    """Layers that are merged with each other. levels: parameters of slice, module and document."""

    sources: Sequence[Source]
    layers: int
    base: str | None
    levels: Sequence[Document]


def merge(document: Document, models: Mapping[str, Model], family: Family) -> Merged:
    """What a document of one stage makes of models."""
    return _Merge(document, models, family).run()


def references(document: Document) -> Iterator[str]:
    """The models that a document names, in the order of their first place."""
    if document.get("base_model"):
        yield document["base_model"]
    for part in _slices_of(document):
        yield from (source["model"] for source in part)
    yield from (entry["model"] for entry in document.get("models", []))


def _slices_of(document: Document) -> Iterator[Sequence[Document]]:
    holders = [document, *document.get("modules", {}).values()]
    for holder in holders:
        yield from (part["sources"] for part in holder.get("slices", []))


class _Merge:
    def __init__(self, document: Document, models: Mapping[str, Model], family: Family) -> None:
        self._document, self._models, self._family = document, models, family
        self._method = document["merge_method"].lower()
        self._names = list(dict.fromkeys(references(document)))
        self._template = models[self._names[0]]
        self._tensors: dict[str, np.ndarray] = {}
        self._magnitude: dict[str, np.ndarray] = {}
        self._doubtful: dict[str, np.ndarray] = {}
        self._loose: dict[str, np.ndarray] = {}

    def run(self) -> Merged:
        config = copy.deepcopy(self._template.config)
        for module in self._family.parts:
            self._outside(self._slices(module, ""), module)
        for module, prefix in self._family.stacks.items():
            slices = self._slices(module, prefix)
            self._layers(slices, prefix)
            self._outside(slices, module)
            origins = [
                (self._models[part.base or part.sources[0].name].config, layer)
                for part in slices
                for layer in _range_of(part)
            ]
            count = self._family.counts.get(module, "")
            if self._family.sliced or count == TEXT_COUNT:
                _restack(config.get_text_config(), [(c.get_text_config(), n) for c, n in origins])
            elif count:
                *holders, last = count.split(".")
                setattr(reduce(getattr, holders, config), last, len(origins))
        model = Model(self._tensors, config, self._template.tokens)
        if any(
            name.endswith(HEADS) and name not in self._template.tensors for name in self._tensors
        ):
            untie(model)
        return Merged(model, self._magnitude, self._doubtful, self._loose, len(self._names) + 1)

    def _slices(self, module: str, prefix: str) -> list[Slice]:
        document = self._document
        shared = document.get("parameters", {})
        holder, levels = document, [shared]
        if "modules" in document:
            holder = document["modules"][module]
            levels = [holder.get("parameters", {}), shared]
        base = document.get("base_model")
        if "slices" not in holder:
            listed = holder.get("models") or document["models"]
            count = _count(self._template.tensors, prefix) if prefix else 0
            sources = [Source(one["model"], 0, one.get("parameters", {})) for one in listed]
            return [Slice(sources, count, base, levels)]
        slices = []
        for part in holder["slices"]:
            sources = [
                Source(one["model"], one["layer_range"][0], one.get("parameters", {}))
                for one in part["sources"]
            ]
            first = part["sources"][0]["layer_range"]
            own = part.get("base_model", base)
            levels_here = [part.get("parameters", {}), *levels]
            slices.append(Slice(sources, first[1] - first[0], own, levels_here))
        return slices

    def _layers(self, slices: Sequence[Slice], prefix: str) -> None:
        number = 0
        for part in slices:
            for i in range(part.layers):
                place = i / (part.layers - 1) if part.layers > 1 else 1.0
                keys = self._keys(part, prefix, i)
                first = self._family.first
                if first and any(first in key for key in keys) != (number == 0):
                    raise Refused("a layer that only the first can be")
                for key in keys:
                    names = [f"{prefix}.{source.begin + i}.{key}" for source in part.sources]
                    self._put(f"{prefix}.{number}.{key}", names, part, place)
                number += 1

    def _keys(self, part: Slice, prefix: str, i: int) -> list[str]:
        held = []
        for source in part.sources:
            stem = f"{prefix}.{source.begin + i}."
            tensors = self._models[source.name].tensors
            held.append([name[len(stem) :] for name in tensors if name.startswith(stem)])
        if any(set(keys) != set(held[0]) for keys in held):
            raise Refused("layers of different kinds are merged with each other")
        return held[0]

    def _outside(self, slices: Sequence[Slice], module: str) -> None:
        """What is in no layer: with a single stack the first slice decides what comes before the
        layers, and the last what comes after."""
        prefixes = tuple(f"{prefix}." for prefix in self._family.stacks.values())
        for name in self._outside_names(prefixes):
            if module != self._module(name):
                continue
            after = name.startswith(self._family.after)
            part = slices[-1 if after else 0]
            self._put(name, [name] * len(part.sources), part, 0.0)

    def _outside_names(self, prefixes: tuple[str, ...]) -> list[str]:
        """The first model's names, and a head that any other has."""
        names = [name for name in self._template.tensors if not name.startswith(prefixes)]
        for model in (self._models[name] for name in self._names):
            names += [name for name in model.tensors if name.endswith(HEADS) and name not in names]
        return names

    def _module(self, name: str) -> str:
        """The module of a tensor outside of layers: that of the longest common prefix."""
        for homes in (self._family.homes, {v: k for k, v in self._family.parts.items()}):
            for prefix, module in homes.items():
                if name.startswith(prefix):
                    return module

        def shared(module: str) -> int:
            pairs = zip(name.split("."), self._family.stacks[module].split("."), strict=False)
            alike = [one == other for one, other in pairs]
            return [*alike, False].index(False)

        return max(self._family.stacks, key=shared)

    def _put(self, name: str, names: Sequence[str], part: Slice, place: float) -> None:
        """Merges one tensor."""
        values, sources = [], list(zip(part.sources, names, strict=True))
        for source, own in sources:
            values.append(_tensor(self._models[source.name], own))
        base = None
        if part.base is not None:
            held = next((k for k, (one, _) in enumerate(sources) if one.name == part.base), None)
            base = values[held] if held is not None else _tensor(self._models[part.base], name)
            if held is not None and self._method in NEEDS_BASE:
                del sources[held], values[held]
        if any(value.shape != values[0].shape for value in values):
            raise Refused(f"{name} has several shapes")
        shape = values[0].shape if values else base.shape  # type: ignore[union-attr]

        def parameter(key: str, default: Any) -> Any:
            return _lookup(key, part.levels, name, place, default)

        def own_parameter(k: int, key: str, default: Any) -> Any:
            source, own = sources[k]
            found = _lookup(key, [source.parameters], own, place, None)
            return parameter(key, default) if found is None else found

        result = merge_terms(
            self._method,
            None if base is None else base.ravel(),
            [value.ravel() for value in values],
            [source.name == part.base for source, _ in sources],
            parameter,
            own_parameter,
            shape,
        )
        self._tensors[name] = result.value.reshape(shape)
        self._magnitude[name] = result.magnitude.reshape(shape)
        self._doubtful[name] = result.doubtful.reshape(shape)
        loose = np.zeros(shape)
        for source, own in zip(part.sources, names, strict=True):
            loose = np.maximum(loose, self._models[source.name].loose.get(own, 0.0))
        self._loose[name] = WEIGHTS * loose
        if self._method in DECIDING:  # by a threshold or a vote, which what is loose may turn
            self._doubtful[name] |= loose > 0


def _tensor(model: Model, name: str) -> np.ndarray:
    """A tensor of a model; a head that it shares is its embeddings."""
    if name in model.tensors:
        return model.tensors[name]
    if name.endswith(HEADS):
        return next(value for key, value in model.tensors.items() if key.endswith(EMBEDDINGS))
    raise Refused(f"a model lacks {name}")


def _count(tensors: Mapping[str, object], prefix: str) -> int:
    stem = prefix + "."
    numbers = [NUMBERED.match(name[len(stem) :]) for name in tensors if name.startswith(stem)]
    return 1 + max(int(found[0]) for found in numbers if found)


def _range_of(part: Slice) -> range:
    chosen = next((one for one in part.sources if one.name == part.base), part.sources[0])
    return range(chosen.begin, chosen.begin + part.layers)


def _lookup(key: str, levels: Sequence[Document], name: str, place: float, default: Any) -> Any:
    for level in levels:
        if key not in level:
            continue
        value = level[key]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            chosen = [
                one["value"] for one in value
                if one.get("filter") in (None, "*") or one["filter"] in name
            ]  # fmt: skip
            if not chosen:
                continue
            value = chosen[0]
        return _at(value, place)
    return default


def _at(value: Any, place: float) -> Any:
    """A gradient's value between the first layer (0) and the last (1)."""
    if not isinstance(value, list):
        return value
    spot = place * (len(value) - 1)
    low = min(int(spot), len(value) - 1)
    high = min(low + 1, len(value) - 1)
    return value[low] + (spot - low) * (value[high] - value[low])


def _restack(config: Any, origins: Sequence[tuple[Any, int]]) -> None:
    """A config for these layers, each with what its own model says of it."""
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [own.layer_types[layer] for own, layer in origins]
    if getattr(config, "mlp_only_layers", None) is not None:
        config.mlp_only_layers = [
            k for k, (own, layer) in enumerate(origins) if layer in own.mlp_only_layers
        ]
    if getattr(config, "first_k_dense_replace", None) is not None:
        dense = [layer < own.first_k_dense_replace for own, layer in origins]
        if dense != sorted(dense, reverse=True):
            raise Refused("dense layers above layers of experts have no words in this config")
        config.first_k_dense_replace = sum(dense)
    config.num_hidden_layers = len(origins)
