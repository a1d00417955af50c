"""Trim by magnitude over a whole tensor: keep every |d| >= the k-th largest, ties included.

TIES-Merging (Yadav et al., NeurIPS 2023, section 3.1, step 1). The density reached is more than the
one asked for by what ties with the k-th largest.
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
) -> float:
    """The share of the L1 norm of |d| >= coarse_threshold that a trim keeps."""
    norms = magnitudes.astype(np.float64) * counts
    coarse = sum_in_order(norms[magnitudes >= coarse_threshold])
    if coarse == 0:
        return 1.0
    above = sum_in_order(norms[magnitudes >= max(coarse_threshold, trim_threshold)])
    return above / coarse


def sum_in_order(terms: npt.NDArray[np.float64]) -> float:
    """Their sum in float64, in one order on every CPU (numpy's own sum depends on vector width)."""
    return float(np.cumsum(terms)[-1]) if len(terms) else 0.0
