"""How much too long a merge of coarse readings is where signs are elected.

Zeros of a coarse reading neither vote nor divide: what agrees is a mean of large changes only, the
longer the more experts there are and the more a random mask drops. So the merge is tried out on a
sample, with weights drawn from the profiles, once as they are and once read coarsely, and readings
are scaled to the norm of the former. Measured in docs/design/planning.md.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mergepipe.catalog.view import TensorView
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.methods.trim import sum_in_order

# The most of its magnitude that a coarse reading counts for: the norm alone is not all, and a
# little less is closer to the exact merge on real fine-tunes.
ELECTED = 0.95

Floats = npt.NDArray[np.float64]

_SAMPLES = 2048


def shortening(
    views: Sequence[TensorView | None], scalars: Scalars, coarse: Sequence[bool]
) -> float:
    """The factor, at most 1, on all coarse readings of a tensor.

    scalars  resolved; their coarse scales are what the factor is on top of
    coarse   per expert: whether it is read coarsely
    """
    whole: list[tuple[Floats, float]] = []
    read: list[tuple[Floats, float]] = []
    for row, (view, expert, used) in enumerate(zip(views, scalars.experts, coarse, strict=True)):
        if view is None or not view.has_coarse or not view.source.signs:
            continue
        if not len(view.distinct[1]):
            return 1.0  # no exact counts of |d| to draw from
        signs = view.signs(5 * len(view.source.signs))[:: max(1, _samples_of(view) // _SAMPLES)]
        exact, estimate = _drawn(view, expert, signs[:_SAMPLES], row)
        whole.append((exact, expert.weight))
        read.append((estimate if used else exact, expert.weight))
    if len(whole) < 2:
        return 1.0
    size = min(len(term) for term, _ in whole)
    longer = _energy(read, size, scalars)
    return min(1.0, float(np.sqrt(_energy(whole, size, scalars) / longer))) if longer > 0 else 1.0


def _samples_of(view: TensorView) -> int:
    return 5 * len(view.source.signs)


def _drawn(
    view: TensorView, own: ExpertScalars, signs: npt.NDArray[np.int8], row: int
) -> tuple[Floats, Floats]:
    """Weighted changes with these coarse signs: as they may be, and as they are read."""
    sizes, counts = view.distinct
    values, weights = sizes.astype(np.float64), counts.astype(np.float64)
    kept = view.kept.astype(np.float64)
    many = sum_in_order(kept)
    magnitude = sum_in_order(view.magnitudes.astype(np.float64) * kept) / many if many else 0.0
    # As many are large as the coarse layer keeps: its thresholds differ from block to block.
    above = np.cumsum(weights[::-1])[::-1]
    first = len(values) - int(np.searchsorted(above[::-1], many, side="right"))
    first = min(max(first, 0), len(values) - 1)
    turns = _uniform(row, 0, len(signs))
    large = values[first:][_places(weights[first:], turns)]
    small = values[:first][_places(weights[:first], turns)] if first else np.zeros(len(signs))
    either = np.where(_uniform(row, 1, len(signs)) < 0.5, -1.0, 1.0)
    exact = np.where(signs != 0, signs * large, either * small)
    size = np.abs(exact)
    exact = np.where((size >= own.threshold) & (size <= own.ceiling), exact, 0.0)
    factor = np.where(_uniform(row, 2, len(signs)) < own.density, own.weight * own.rescale, 0.0)
    estimate = signs.astype(np.float64) * (magnitude * own.coarse_scale) * factor
    return exact * factor, estimate


def _places(weights: Floats, turns: Floats) -> npt.NDArray[np.int64]:
    """Indices drawn in proportion to weights."""
    until = np.cumsum(weights)
    places: npt.NDArray[np.int64] = np.searchsorted(until, turns * until[-1], side="right")
    return places.clip(max=len(weights) - 1)


def _uniform(row: int, column: int, count: int) -> Floats:
    """Numbers in [0, 1), the same everywhere: splitmix64 of their place."""
    x = np.arange(count, dtype=np.uint64) + np.uint64((row << 34) + (column << 32))
    with np.errstate(over="ignore"):
        for _ in range(2):
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    drawn: Floats = (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


def _energy(terms: Sequence[tuple[Floats, float]], size: int, scalars: Scalars) -> float:
    """Sum of squares of the elected merge of weighted changes."""
    up, down = np.zeros(size), np.zeros(size)
    above, below = np.zeros(size), np.zeros(size)
    for term, weight in terms:
        values = term[:size]
        up += np.maximum(values, 0.0)
        down += np.minimum(values, 0.0)
        above += np.where(values > 0, weight, 0.0)
        below += np.where(values < 0, weight, 0.0)
    plus = up >= -down
    merged = np.where(plus, up, down)
    if scalars.normalize:
        divisor = np.where(plus, above, below)
        merged = merged / np.where(divisor == 0, 1.0, divisor)
    return sum_in_order(merged * merged)
