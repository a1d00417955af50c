"""Exact order statistics of float32 magnitudes over a whole tensor, in two passes of counting.

The bits of a float32 that is not negative have its order. The upper 16 choose a bucket, the lower
15 a place in it: the first pass counts all buckets, the second the places inside those that hold
the ranks asked for. Counts are float64 (exact to 2^53), so that they add up like any statistic.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]

LOW_BITS = 15
BUCKETS = 1 << 16
PLACES = 1 << LOW_BITS


def bucket_counts(values: npt.NDArray[np.float32]) -> Counts:
    """How many of the values, none below 0, lie in each bucket; shape (BUCKETS,)."""
    buckets = _bits(values) >> np.uint32(LOW_BITS)
    return np.bincount(buckets, minlength=BUCKETS).astype(np.float64)


def place_counts(values: npt.NDArray[np.float32], bucket: int) -> Counts:
    """How many have each place of one bucket; shape (PLACES,)."""
    bits = _bits(values)
    inside = bits[bits >> np.uint32(LOW_BITS) == bucket] & np.uint32(PLACES - 1)
    return np.bincount(inside, minlength=PLACES).astype(np.float64)


def find(counts: Counts, rank: int) -> tuple[int, int]:
    """Where the rank-th largest lies (from 1), and how many lie above that place."""
    at_least = np.cumsum(counts[::-1])
    place = int(np.searchsorted(at_least, max(1, rank)))
    here = len(counts) - 1 - min(place, len(counts) - 1)
    return here, int(at_least[place - 1]) if place else 0


def values_of(bucket: int, first: int = 0) -> npt.NDArray[np.float32]:
    """The values of a bucket's places, from place `first` on."""
    bits = (bucket << LOW_BITS) + np.arange(first, PLACES)
    return bits.astype(np.uint32).view(np.float32)


def value_at(buckets: Counts, places: Counts, rank: int) -> float:
    """The rank-th largest (from 1), from the counts of all buckets and of those of its bucket."""
    bucket, above = find(buckets, rank)
    place, _ = find(places, rank - above)
    return float(values_of(bucket, place)[0])


def _bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    # Minus zero is no larger than zero.
    return values.view(np.uint32) & np.uint32(0x7FFFFFFF)
