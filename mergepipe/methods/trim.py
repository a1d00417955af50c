"""Trim by magnitude over a whole tensor: keep every |d| >= the k-th largest, ties included.

TIES-Merging (Yadav et al., NeurIPS 2023, section 3.1, step 1). The density reached is more than the
one asked for by what ties with the k-th largest.

A band leaves out the very largest as well (Davari and Belilovsky, Model Breadcrumbs, ECCV 2024): of
n elements the top int(gamma n) go, the next int(density n) stay, and what ties with the ends of
those stays too. Where they overlap the density wins.
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Below this an L1 norm counts as zero and nothing is rescaled (mergekit 0.1.5).
SMALLEST_L1 = 1e-7


class Trim(NamedTuple):
    """A trim of one expert's delta: the value of a TRIM need."""

    threshold: float
    density: float
    l1_before: float
    l1_kept: float


class Band(NamedTuple):
    """What a band keeps of one expert's delta: the value of a BAND need."""

    threshold: float
    ceiling: float
    density: float
    l1_before: float
    l1_kept: float


def kept_ranks(density: float, gamma: float, elements: int) -> tuple[int, int]:
    """The ranks a band keeps, of the largest (from 1) and of the smallest; (1, 0) for none."""
    kept = min(int(density * elements), elements)
    first = 1 + min(int(gamma * elements), elements - kept)
    return (first, first + kept - 1) if kept > 0 else (1, 0)


def kept_count(density: float, elements: int) -> int:
    """How many elements a density keeps, ties aside: max(1, int(density n)); 0 for none."""
    return max(1, int(density * elements)) if density > 0 else 0


def from_counts(
    magnitudes: npt.NDArray[np.float32],
    counts: npt.NDArray[Any],
    density: float,
    elements: int,
) -> Trim:
    """The trim that exact counts of |d| give.

    magnitudes  distinct |d|, ascending; zero may be left out
    counts      elements that have each of them, integers
    elements    of the tensor, zeros included
    """
    weights = counts.astype(np.float64)
    norms = magnitudes.astype(np.float64) * weights
    l1_before = sum_in_order(norms)
    if density >= 1 or elements == 0:
        return Trim(0.0, 1.0, l1_before, l1_before)
    if density <= 0:
        return Trim(inf, 0.0, l1_before, 0.0)
    at_least = np.cumsum(counts[::-1].astype(np.int64))
    place = int(np.searchsorted(at_least, kept_count(density, elements)))
    if place == len(at_least):  # the k-th largest is one of the zeros left out of the counts
        return Trim(0.0, 1.0, l1_before, l1_before)
    first = len(magnitudes) - 1 - place
    threshold = float(magnitudes[first])
    kept = elements if threshold == 0 else int(at_least[place])
    return Trim(threshold, kept / elements, l1_before, sum_in_order(norms[first:]))


def band_from_counts(
    magnitudes: npt.NDArray[np.float32],
    counts: npt.NDArray[Any],
    density: float,
    gamma: float,
    elements: int,
) -> Band:
    """The band that exact counts of |d| give; arguments as in `from_counts`."""
    norms = magnitudes.astype(np.float64) * counts.astype(np.float64)
    l1_before = sum_in_order(norms)
    largest, smallest = kept_ranks(density, gamma, elements)
    if density >= 1 or elements == 0:
        return Band(0.0, inf, 1.0, l1_before, l1_before)
    if smallest == 0:
        return Band(inf, inf, 0.0, l1_before, 0.0)
    at_least = np.cumsum(counts[::-1].astype(np.int64))

    def place(rank: int) -> int:
        """Where the rank-th largest is among the magnitudes; -1 for zeros left out of them."""
        return len(magnitudes) - 1 - int(np.searchsorted(at_least, rank))

    first, last = place(smallest), place(largest)
    threshold = float(magnitudes[first]) if first >= 0 else 0.0
    ceiling = float(magnitudes[last]) if last >= 0 else 0.0
    above = int(counts[last + 1 :].sum())
    kept = (elements if threshold == 0 else int(counts[max(first, 0) :].sum())) - above
    share = kept / elements
    return Band(threshold, ceiling, share, l1_before, sum_in_order(norms[max(first, 0) : last + 1]))


def l1_rescale(l1_before: float, l1_after: float) -> float:
    """The factor that gives a masked delta its old L1 norm; 1 where either is next to nothing."""
    if l1_before < SMALLEST_L1 or l1_after < SMALLEST_L1:
        return 1.0
    return l1_before / l1_after


def coarse_share(
    magnitudes: npt.NDArray[np.float32],
    counts: npt.NDArray[Any],
    coarse_threshold: float,
    trim_threshold: float,
    ceiling: float = inf,
) -> float:
    """The share of the L1 norm of |d| >= coarse_threshold that a trim or a band keeps."""
    norms = magnitudes.astype(np.float64) * counts
    coarse = sum_in_order(norms[magnitudes >= coarse_threshold])
    if coarse == 0:
        return 1.0
    kept = (magnitudes >= max(coarse_threshold, trim_threshold)) & (magnitudes <= ceiling)
    return sum_in_order(norms[kept]) / coarse


def sum_in_order(terms: npt.NDArray[np.float64]) -> float:
    """Their sum in float64, in one order on every CPU (numpy's own sum depends on vector width)."""
    return float(np.cumsum(terms)[-1]) if len(terms) else 0.0
