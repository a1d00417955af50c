"""Statistics over a whole tensor, measured range by range: a `Need` that is not known yet.

For one need, over units that together cover the tensor (with any scalars: `Scalars.plain(count)`):

    known = ()
    for _ in range(of(need).passes):
        known += (combine(partial(need, unit, known) for unit in units),)
    result = value(need, known)

which is what `measure` does. Partials may be computed anywhere and in any order, but are combined
in the order of the tensor: their float64 sums then depend on the split into ranges, and nothing
else. A partial is at most 512 KiB, or K x K.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mergepipe.errors import MergeInputError
from mergepipe.methods.protocol import FUSED, Need, NeedKind
from mergepipe.methods.randomness import KEEP_ALL, keep_limit, mask_keys
from mergepipe.methods.terms import SAME, Coarse, Delta, Full, Scalars, Term, Unit
from mergepipe.methods.trim import Trim, kept_count, sum_in_order

Partial: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistic:
    """How a kind of need is measured; `partial` and `value` see the combined results so far."""

    passes: int
    partial: Callable[[Need, Unit, Sequence[Partial]], Partial]
    value: Callable[[Need, Sequence[Partial]], tuple[float, ...]]


def of(need: Need) -> Statistic:
    """The statistic a need names."""
    return _STATISTICS[need.kind]


def partial(need: Need, unit: Unit, known: Sequence[Partial] = ()) -> Partial:
    """One range's share, in pass number `len(known)`; a flat array to be added to the others'."""
    unit.check()
    return of(need).partial(need, unit, known)


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
    measured = (n for n in needs if not (exact_counts and n.kind is NeedKind.TRIM))
    return 1 + max((of(need).passes for need in measured), default=0)


def _only(unit: Unit, expert: int | None) -> Unit:
    """The unit of one expert alone, in dtypes that kernels know."""
    assert expert is not None
    return _converted(replace(unit, terms=(unit.terms[expert],), scalars=Scalars.plain(1)), True)


def _converted(unit: Unit, as_deltas: bool) -> Unit:
    dtypes = {term.dtype for term in unit.terms if isinstance(term, Full | Delta)}
    if unit.base is not None:
        dtypes.add(unit.base.dtype)
    if dtypes <= FUSED:
        return unit
    from mergepipe.methods.eager.operands import in_float32

    return in_float32(unit, as_deltas=as_deltas)


def _trim_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.fused import launch

    term: Term = unit.terms[need.expert or 0]
    if isinstance(term, Coarse):
        raise MergeInputError("a trim's threshold cannot be measured on a coarse estimate")
    bucket = -1 if not known else _find(known[0], kept_count(need.density, _elements(known)))[0]
    return launch.magnitude_histogram(_only(unit, need.expert), bucket)


def _trim_value(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    from mergepipe.methods.fused.statistics import LOW_BITS, PLACES

    elements = _elements(known)
    counts, (l1_before, l1_higher) = known[1][:PLACES], known[1][PLACES:]
    if need.density >= 1 or elements == 0:
        return Trim(0.0, 1.0, l1_before, l1_before)
    if need.density <= 0:
        return Trim(np.inf, 0.0, l1_before, 0.0)
    bucket, above = _find(known[0], kept_count(need.density, elements))
    place, higher = _find(counts, kept_count(need.density, elements) - above)
    bits = (bucket << LOW_BITS) + np.arange(place, PLACES)
    norms = bits.astype(np.uint32).view(np.float32).astype(np.float64) * counts[place:]
    kept = above + higher + int(counts[place])
    used = norms[counts[place:] > 0]
    threshold = float(bits[:1].astype(np.uint32).view(np.float32)[0])
    return Trim(threshold, kept / elements, float(l1_before), float(l1_higher) + sum_in_order(used))


def _elements(known: Sequence[Partial]) -> int:
    return int(known[0].sum())  # counts: exact in any order


def _find(counts: Partial, rank: int) -> tuple[int, int]:
    """Where the rank-th largest lies (from 1), and how many lie above that place."""
    at_least = np.cumsum(counts[::-1])
    place = int(np.searchsorted(at_least, max(1, rank)))
    here = len(counts) - 1 - min(place, len(counts) - 1)
    return here, int(at_least[place - 1]) if place else 0


def _mask_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.fused import launch

    assert need.expert is not None
    if unit.terms[need.expert] is SAME:
        return np.zeros(2)
    limit = keep_limit(need.density)
    keys = mask_keys(unit.seed, unit.tensor_key, need.expert)
    mask = None if limit == KEEP_ALL else np.array([*keys, limit], np.uint32)
    return launch.l1_norms(_only(unit, need.expert), mask)


def _gram_partial(need: Need, unit: Unit, known: Sequence[Partial]) -> Partial:
    from mergepipe.methods.fused import launch

    return launch.gram(_converted(unit, False))


def _sums(need: Need, known: Sequence[Partial]) -> tuple[float, ...]:
    return tuple(float(one) for one in known[0])


_STATISTICS = {
    NeedKind.TRIM: Statistic(2, _trim_partial, _trim_value),
    NeedKind.MASK_L1: Statistic(1, _mask_partial, _sums),
    NeedKind.GRAM: Statistic(1, _gram_partial, _sums),
}
