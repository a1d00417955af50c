"""TRIM and BAND: thresholds on |d| of one expert, counted in two passes (`order`)."""

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
from msgspec.structs import replace

from mergepipe.errors import MergeInputError
from mergepipe.methods.order import PLACES, Counts, find, values_of
from mergepipe.methods.protocol import FUSED, Need
from mergepipe.methods.terms import Coarse, Delta, Full, Scalars, Unit
from mergepipe.methods.trim import Band, Trim, kept_count, kept_ranks, sum_in_order


def trim_partial(need: Need, unit: Unit, known: Sequence[Counts]) -> Counts:
    """Counts of all buckets, then of the one with the k-th largest, with two norms."""
    return _partial(need, unit, known, lambda count: (kept_count(need.density, count),))


def band_partial(need: Need, unit: Unit, known: Sequence[Counts]) -> Counts:
    """Counts of all buckets, then of those with either end of the band, with two norms each."""

    def ranks(count: int) -> tuple[int, int]:
        largest, smallest = kept_ranks(need.density, need.gamma, count)
        return smallest, largest

    return _partial(need, unit, known, ranks)


def trim_value(need: Need, known: Sequence[Counts]) -> Trim:
    """The trim, after both passes."""
    elements, (l1_before, _) = _elements(known), known[1][PLACES:]
    if need.density >= 1 or elements == 0:
        return Trim(0.0, 1.0, float(l1_before), float(l1_before))
    if need.density <= 0:
        return Trim(inf, 0.0, float(l1_before), 0.0)
    rank = kept_count(need.density, elements)
    threshold, kept, norm = _from(known[0], known[1], rank)
    return Trim(threshold, kept / elements, float(l1_before), norm)


def band_value(need: Need, known: Sequence[Counts]) -> Band:
    """The band, after both passes."""
    lower, upper = np.split(known[1], 2)
    elements, l1_before = _elements(known), float(lower[PLACES])
    largest, smallest = kept_ranks(need.density, need.gamma, elements)
    if need.density >= 1 or elements == 0:
        return Band(0.0, inf, 1.0, l1_before, l1_before)
    if smallest == 0:
        return Band(inf, inf, 0.0, l1_before, 0.0)
    threshold, kept, norm = _from(known[0], lower, smallest)
    ceiling, above, norm_above = _from(known[0], upper, largest, beyond=True)
    share = (kept - above) / elements
    return Band(threshold, ceiling, share, l1_before, max(0.0, norm - norm_above))


def only(unit: Unit, expert: int | None) -> Unit:
    """The unit of one expert alone, in dtypes that kernels know."""
    assert expert is not None
    alone = replace(unit, terms=(unit.terms[expert],), scalars=Scalars.plain(1))
    return converted(alone, as_deltas=True)


def converted(unit: Unit, *, as_deltas: bool) -> Unit:
    """The unit in dtypes that kernels know: float32 deltas or weights where its own are others."""
    dtypes = {term.dtype for term in unit.terms if isinstance(term, Full | Delta)}
    if unit.base is not None:
        dtypes.add(unit.base.dtype)
    if dtypes <= FUSED:
        return unit
    from mergepipe.methods.eager.operands import in_float32

    return in_float32(unit, as_deltas=as_deltas)


def _partial(
    need: Need, unit: Unit, known: Sequence[Counts], ranks: Callable[[int], tuple[int, ...]]
) -> Counts:
    from mergepipe.methods.fused import launch

    assert need.expert is not None
    if isinstance(unit.terms[need.expert], Coarse):
        raise MergeInputError("a trim's threshold cannot be measured on a coarse estimate")
    alone = only(unit, need.expert)
    if not known:
        return launch.magnitude_histogram(alone, -1)
    buckets = [find(known[0], rank)[0] for rank in ranks(_elements(known))]
    return np.concatenate([launch.magnitude_histogram(alone, bucket) for bucket in buckets])


def _elements(known: Sequence[Counts]) -> int:
    return int(known[0].sum())  # counts: exact in any order


def _from(
    buckets: Counts, inside: Counts, rank: int, *, beyond: bool = False
) -> tuple[float, int, float]:
    """The rank-th largest, how many are no smaller (`beyond`: larger), and their L1 norm.

    inside  counts of its bucket's places, L1 of d, L1 of what lies in higher buckets
    """
    counts, l1_higher = inside[:PLACES], inside[PLACES + 1]
    bucket, above = find(buckets, rank)
    place, higher = find(counts, rank - above)
    first = place + 1 if beyond else place
    norms = values_of(bucket, first).astype(np.float64) * counts[first:]
    used = sum_in_order(norms[counts[first:] > 0])
    here = 0 if beyond else int(counts[place])
    return float(values_of(bucket, place)[0]), above + higher + here, float(l1_higher) + used
