"""What each depth of an expert's block is worth: the delta energy of it that survives the method.

An estimate of what a read does for the result, from the profile alone; see docs/design/planning.md.
"""

from collections.abc import Sequence
from math import inf

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.catalog.view import TensorView
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.methods.trim import coarse_share, sum_in_order

Floats = npt.NDArray[np.float64]

# What a unit of energy that a coarse layer misses harms, beside one that is left out. A layer
# misses many small changes, whose noise averages out in a product; what is left out is a whole step
# towards the expert. Measured on real fine-tunes: any value below 0.3 does as well
# (docs/design/planning.md).
NOISE = 0.2


class ExpertGains(Struct, frozen=True):
    """Per block: what its coarse layer and what its exact bytes are worth (the same unit)."""

    coarse: Floats
    exact: Floats


def share_above_trim(view: TensorView, own: ExpertScalars) -> float:
    """The share of the coarse reading's L1 norm that lies within a trim."""
    magnitudes, counts = view.distinct
    if not _trims(own) or not view.has_coarse or not len(counts):
        return 1.0
    return coarse_share(magnitudes, counts, _coarse_threshold(view), own.threshold, own.ceiling)


def _trims(own: ExpertScalars) -> bool:
    return own.threshold > 0 or own.ceiling < inf


def tensor_gains(
    views: Sequence[TensorView | None], scalars: Scalars, elements: Sequence[int]
) -> list[ExpertGains | None]:
    """The gains of each expert that has a profile.

    scalars   resolved; the coarse scale is left aside (a coarse layer is judged by what its best
              scale captures: methods choose theirs for other reasons, docs/design/coarse-layer.md)
    elements  of each block
    """
    agreeing = _agreement(views, scalars) if scalars.elect else [1.0] * len(views)
    divisor = 1.0
    if scalars.normalize:
        divisor = abs(sum(scalars_of_expert.weight for scalars_of_expert in scalars.experts)) or 1.0
    gains: list[ExpertGains | None] = []
    for view, expert, agrees in zip(views, scalars.experts, agreeing, strict=True):
        if view is None:
            gains.append(None)
            continue
        weight = (expert.weight * scalars.scale / divisor) ** 2 * agrees
        kept = weight * view.energies * _surviving(view, expert, elements)
        coarse = np.zeros_like(kept)
        if view.has_coarse:
            above = share_above_trim(view, expert)
            captured = np.minimum(weight * view.estimate_energies * above**2, kept)
            coarse = np.where(captured > 0, kept - NOISE * (kept - captured), 0.0)
        gains.append(ExpertGains(coarse, kept))
    return gains


def _surviving(view: TensorView, own: ExpertScalars, elements: Sequence[int]) -> Floats:
    """Share of each block's energy that a trim of the whole tensor leaves.

    The counts are the tensor's: a block's are taken to be of the same form, stretched to its
    energy.
    """
    magnitudes, counts = view.distinct
    if not _trims(own) or not len(counts):
        return np.ones(view.blocks)
    values = magnitudes.astype(np.float64)
    energies = values * values * counts
    above = np.append(np.cumsum(energies[::-1])[::-1], 0.0)
    sizes = np.asarray(elements, np.float64)
    known = view.known_energies
    mean_square = sum_in_order(known) / max(sum_in_order(sizes), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.sqrt(mean_square * sizes / known)
        low, high = own.threshold * stretch, own.ceiling * stretch
    low = np.nan_to_num(low, nan=np.inf, posinf=np.inf)
    high = np.nan_to_num(high, nan=np.inf, posinf=np.inf)
    kept = above[np.searchsorted(values, low)] - above[np.searchsorted(values, high, "right")]
    shares: Floats = np.maximum(kept, 0.0) / (above[0] or 1.0)
    return shares


def _agreement(views: Sequence[TensorView | None], scalars: Scalars) -> list[float]:
    """Per expert, the share of its sampled large changes that agree with the elected sign."""
    signs: list[npt.NDArray[np.int8] | None] = []
    votes: Floats | None = None
    for view, expert in zip(views, scalars.experts, strict=True):
        if view is None or not view.has_coarse or not view.source.signs:
            signs.append(None)
            continue
        mine = np.sign(expert.weight).astype(np.int8) * _sampled(view)
        signs.append(mine)
        vote = abs(expert.weight) * _mean_magnitude(view) * mine
        votes = vote if votes is None else votes + vote
    elected = None if votes is None else np.where(votes < 0, -1, 1)
    shares = []
    for sign in signs:
        large = 0 if sign is None else int(np.count_nonzero(sign))
        if sign is None or elected is None or large == 0:
            shares.append(1.0)
        else:
            shares.append(int(np.count_nonzero(sign == elected)) / large)
    return shares


def _sampled(view: TensorView) -> npt.NDArray[np.int8]:
    """All the signs that are packed: as many for every expert of a tensor."""
    return view.signs(5 * len(view.source.signs))


def _mean_magnitude(view: TensorView) -> float:
    kept = sum_in_order(view.kept.astype(np.float64))
    return sum_in_order(view.magnitudes.astype(np.float64) * view.kept) / kept if kept else 0.0


def _coarse_threshold(view: TensorView) -> float:
    """One threshold for all blocks: their mean, weighed by what each keeps."""
    kept = sum_in_order(view.kept.astype(np.float64))
    if not kept:
        return 0.0
    return sum_in_order(view.thresholds.astype(np.float64) * view.kept) / kept
