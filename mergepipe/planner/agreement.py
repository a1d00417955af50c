"""How experts' changes lie to each other: from what profiles hold, so that no weight is read.

A profile keeps the sign of each large change, and that there is none, at up to 4096 places of a
tensor, the same places for all experts. Of what a plan merges, with the signs of its weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan

import numpy as np
import numpy.typing as npt

from mergepipe.catalog.view import TensorView
from mergepipe.planner.estimation import cosines, has_signs
from mergepipe.plans.explain import Pricing

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How inputs change the same weights: a row and a column of each array for each of them.

    models    their places among the plan's; the same may stand twice
    opposed   weights that both of a pair change much, in opposite directions
    shared    weights that both of a pair change much
    products  inner products of the weighted changes
    energies  the row's energy, over what is known of both

    NaN where a profile does not tell. Counts are scaled up from the places to the tensors.
    """

    models: tuple[int, ...]
    opposed: Floats
    shared: Floats
    products: Floats
    energies: Floats

    @cached_property
    def conflicts(self) -> list[float | None]:
        """Of what each and another change much, the share where they disagree: over all others."""
        others = ~np.eye(len(self.models), dtype=bool) & ~np.isnan(self.shared)
        opposed = np.where(others, self.opposed, 0.0).sum(axis=1)
        shared = np.where(others, self.shared, 0.0).sum(axis=1)
        return [_share(*each) for each in zip(opposed.tolist(), shared.tolist(), strict=True)]

    @cached_property
    def cosines(self) -> list[float | None]:
        """The mean cosine of each one's change with those of others that change anything."""
        known = ~np.isnan(self._angles) & ~np.eye(len(self.models), dtype=bool)
        sums = np.where(known, self._angles, 0.0).sum(axis=1)
        counts = known.sum(axis=1)
        return [_share(*each) for each in zip(sums.tolist(), counts.tolist(), strict=True)]

    def pair(self, one: int, other: int) -> tuple[float | None, float | None]:
        """Conflict and cosine of two rows."""
        conflict = _share(float(self.opposed[one, other]), float(self.shared[one, other]))
        cosine = float(self._angles[one, other])
        return conflict, None if isnan(cosine) else cosine

    @cached_property
    def _angles(self) -> Floats:
        """The cosines of all pairs; NaN where either changes nothing, or is not known."""
        many = np.sqrt(self.energies * self.energies.T)
        angles = np.full_like(many, np.nan)
        np.divide(self.products, many, out=angles, where=many > 0)
        return angles.clip(-1.0, 1.0)


def agreements(pricing: Pricing) -> dict[str, Agreement]:
    """Of every tensor that is computed, by name; rows as its cost's `experts`."""
    return {
        line.name: _agreement(pricing, number)
        for number, line in enumerate(pricing.plan.lines)
        if line.file is not None and line.copied is None
    }


def together(of: Iterable[Agreement]) -> Agreement:
    """Several tensors as one; a row for each model, in the order of their places."""
    tensors = list(of)
    models = sorted({model for tensor in tensors for model in tensor.models})
    places = {model: place for place, model in enumerate(models)}
    sums = np.zeros((4, len(models), len(models)))
    for tensor in tensors:
        rows = [places[model] for model in tensor.models]
        parts = (tensor.opposed, tensor.shared, tensor.products, tensor.energies)
        for total, part in zip(sums, parts, strict=True):
            np.add.at(total, np.ix_(rows, rows), np.nan_to_num(part))
    return Agreement(tuple(models), *sums)


def _agreement(pricing: Pricing, number: int) -> Agreement:
    line = pricing.plan.lines[number]
    leaves = pricing.parts(number).leaves
    shape = pricing.tensors[line.like].shape
    elements = int(np.prod(shape))
    known = [
        (row, leaf.view)
        for row, leaf in enumerate(leaves)
        if leaf.view is not None and has_signs(leaf.view)
    ]
    size = len(leaves)
    opposed, shared, products, energies = np.full((4, size, size), np.nan)
    if known:
        rows = np.ix_([row for row, _ in known], [row for row, _ in known])
        views = [view for _, view in known]
        weights = np.array([leaves[row].scalars.weight for row, _ in known])
        turns = np.where(weights < 0, -1, 1)
        opposed[rows], shared[rows] = _counted(views, turns, elements)
        sizes = weights**2 * [view.known_energies.sum() for view in views]
        angles = cosines(views, elements) * np.outer(turns, turns)
        products[rows] = angles * np.sqrt(np.outer(sizes, sizes))
        energies[rows] = sizes[:, None]
    models = tuple(leaf.model for leaf in leaves)
    return Agreement(models, opposed, shared, products, energies)


def _counted(
    views: Sequence[TensorView], turns: npt.NDArray[np.int64], elements: int
) -> tuple[Floats, Floats]:
    signs = np.stack([view.signs(elements) for view in views]).astype(np.float64) * turns[:, None]
    sampled = signs.shape[1]
    both = np.abs(signs) @ np.abs(signs).T
    scale = elements / sampled if sampled else 0.0
    return (both - signs @ signs.T) / 2 * scale, both * scale


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None  # nor where it is not known
