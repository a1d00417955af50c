"""Statistics over a whole tensor, measured range by range: a `Need` that is not known yet.

For one need, over units that together cover the tensor (with any scalars: `Scalars.plain(count)`),
of whole rows where `of(need).scope` is ROW:

    known = ()
    for _ in range(of(need).passes):
        known += (combine(partial(need, unit, known) for unit in units),)
    result = value(need, known)

which is what `measure` does. Partials may be computed anywhere and in any order, but are combined
in the order of the tensor: their float64 sums then depend on the split into ranges, and nothing
else. A partial is at most 768 KiB, K x K, or three numbers for each column.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.errors import MergeInputError
from mergepipe.methods import magnitudes
from mergepipe.methods.protocol import Need, NeedKind, Scope
from mergepipe.methods.randomness import KEEP_ALL, keep_limit, mask_keys
from mergepipe.methods.sweeps import check_rows
from mergepipe.methods.terms import SAME, Unit
from mergepipe.methods.trim import band_from_counts
from mergepipe.methods.trim import from_counts as trim_from_counts

Partial: TypeAlias = npt.NDArray[np.float64]


class Statistic(Struct, frozen=True):
    """How a need is measured; `partial` and `value` see the combined results so far.

    scope   of the ranges: ELEMENT any, ROW whole rows
    deltas  whether it looks at differences, and so takes the base (of weights it does not, unless a
            term is no Full)
    """

    passes: int
    partial: Callable[[Need, Unit, Sequence[Partial]], Partial]
    value: Callable[[Need, Sequence[Partial]], tuple[float, ...]]
    scope: Scope = Scope.ELEMENT
    deltas: bool = True


def of(need: Need) -> Statistic:
    """The statistic a need names."""
    if need.kind is NeedKind.SPREAD and need.density >= 1:
        return _ENERGIES
    return _STATISTICS[need.kind]


def partial(need: Need, unit: Unit, known: Sequence[Partial] = ()) -> Partial:
    """One range's share, in pass number `len(known)`; a flat array to be added to the others'."""
    unit.check()
    statistic = of(need)
    if statistic.scope is Scope.ROW:
        check_rows(unit)
    return statistic.partial(need, unit, known)


def combine(partials: Iterable[Partial]) -> Partial:
    """Their sum, in the order given: that of the ranges in the tensor."""
    total: Partial | None = None
    for one in partials:
        total = one.copy() if total is None else np.add(total, one, out=total)
    if total is None:
        raise MergeInputError("a statistic over no ranges")
    return total


def value(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    """The need's value, after all passes."""
    return of(need).value(need, known)


def measure(need: Need, units: Sequence[Unit]) -> tuple[float, ...]:
    """All of the above over units in the order of the tensor, one after the other."""
    known: list[Partial] = []
    for _ in range(of(need).passes):
        known.append(combine(partial(need, unit, known) for unit in units))
    return value(need, known)


def passes(needs: Iterable[Need], *, exact_counts: bool = True) -> int:
    """Passes over the inputs, the element pass included.

    exact_counts  whether trims come from a profile's counts, at no pass
    """
    measured = (need for need in needs if not (exact_counts and need.kind in COUNTED))
    return 1 + max((of(need).passes for need in measured), default=0)


# What exact counts of |d| answer, at no read.
COUNTED = frozenset((NeedKind.TRIM, NeedKind.BAND))


def from_counts(
    need: Need,
    magnitudes: npt.NDArray[np.float32],
    counts: npt.NDArray[Any],
    elements: int,
) -> tuple[float, ...] | None:
    """The value of a need that exact counts of its expert's |d| answer; None for any other.

    Arguments as for `trim.from_counts`.
    """
    if need.kind is NeedKind.TRIM:
        return trim_from_counts(magnitudes, counts, need.density, elements)
    if need.kind is NeedKind.BAND:
        return band_from_counts(magnitudes, counts, need.density, need.gamma, elements)
    return None


def supposed(need: Need, experts: int) -> tuple[float, ...]:
    """A value for a need that is not measured yet, good enough to choose what to read by.

    A trim that is not known keeps everything; a random mask leaves its density of the L1 norm;
    models of one family point the same way, and their differences half so; all of them change the
    same elements as much.
    """
    match need.kind:
        case NeedKind.TRIM:
            return (0.0, 1.0, 1.0, 1.0)
        case NeedKind.BAND:
            return (0.0, inf, 1.0, 1.0, 1.0)
        case NeedKind.MASK_L1 | NeedKind.RANK_L1:
            return (1.0, need.density)
        case NeedKind.GRAM:
            return (1.0,) * experts**2
        case NeedKind.DELTA_GRAM:
            return tuple(1.0 if i == j else 0.5 for i in range(experts) for j in range(experts))
        case NeedKind.COLUMNS | NeedKind.DELTA_COLUMNS:
            return (1.0, 1.0, 1.0)
        case NeedKind.SPREAD:
            return (0.0,) + (1.0,) * experts
        case NeedKind.SHARING:
            return (1.0, 1.0) * experts
        case NeedKind.IMPORTANCE:
            return (0.0,)


def _mask_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.fused import launch

    assert need.expert is not None
    if unit.terms[need.expert] is SAME:
        return np.zeros(2)
    limit = keep_limit(need.density)
    keys = mask_keys(unit.seed, unit.tensor_key, need.expert)
    mask = None if limit == KEEP_ALL else np.array([*keys, limit], np.uint32)
    return launch.l1_norms(magnitudes.only(unit, need.expert), mask)


def _gram_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.fused import launch

    deltas = need.kind is NeedKind.DELTA_GRAM
    return launch.gram(magnitudes.converted(unit, as_deltas=deltas), deltas=deltas)


def _columns_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.eager.columns import dot_products

    return dot_products(unit, of_deltas=need.kind is NeedKind.DELTA_COLUMNS)


def _sharing_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.eager.ram import sharing

    return sharing(unit, need.epsilon)


def _rank_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.eager.della import norms

    return norms(need, unit)


def _spread_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.eager.sce import partial

    return partial(need, unit, known)


def _spread_value(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    from mergepipe.methods.eager.sce import value

    return value(need, known)


def _importance_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.eager.fusion import partial

    return partial(need, unit, known)


def _importance_value(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    from mergepipe.methods.eager.fusion import value

    return value(need, known)


def _sums(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    return tuple(float(one) for one in known[0])


_STATISTICS = {
    NeedKind.TRIM: Statistic(2, magnitudes.trim_partial, magnitudes.trim_value),
    NeedKind.BAND: Statistic(2, magnitudes.band_partial, magnitudes.band_value),
    NeedKind.MASK_L1: Statistic(1, _mask_partial, _sums),
    NeedKind.GRAM: Statistic(1, _gram_partial, _sums, deltas=False),
    NeedKind.DELTA_GRAM: Statistic(1, _gram_partial, _sums),
    NeedKind.COLUMNS: Statistic(1, _columns_partial, _sums, deltas=False),
    NeedKind.DELTA_COLUMNS: Statistic(1, _columns_partial, _sums),
    NeedKind.SHARING: Statistic(1, _sharing_partial, _sums),
    NeedKind.SPREAD: Statistic(3, _spread_partial, _spread_value),
    NeedKind.RANK_L1: Statistic(1, _rank_partial, _sums, Scope.ROW),
    NeedKind.IMPORTANCE: Statistic(2, _importance_partial, _importance_value, Scope.ROW),
}
_ENERGIES = Statistic(1, _spread_partial, _spread_value)
