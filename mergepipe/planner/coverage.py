"""Which blocks to read at all, under a budget that does not pay for a first look at every block.

Energy is a poor guide across tensors: by gain per byte, the budget goes to the few tensors with the
largest changes, and the merge keeps less than one of blocks chosen at random
(docs/design/planning.md). So first looks are spread evenly over tensors, experts and places by a
sequence of low discrepancy, weighed by gain only within a tensor: what one expert gives less of,
there, is read less.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mergepipe.planner.selection import Floats, Integers, Shares, on_hull

# Fractions of multiples of the golden ratio fill [0, 1) evenly, however many are taken (Knuth,
# TAOCP 3, 6.4, theorem S).
_STEP = (5**0.5 - 1) / 2
_POWER = 0.5


def spread(
    coarse_costs: Integers,
    coarse_gains: Floats,
    exact_costs: Integers,
    exact_gains: Floats,
    sizes: Sequence[int],
    budget_bytes: int,
    shares: Shares | None = None,
) -> tuple[Floats, Floats]:
    """Gains by which `select` covers evenly; those given, if the budget pays for every first look.

    sizes  items of each tensor, in order. All else as in `select`

    Where it pays for them, but the share of a group of items does not, only that group's are
    covered evenly, and come first: its share leaves the others enough.
    """
    coarse = on_hull(coarse_costs, coarse_gains, exact_costs, exact_gains)
    first_costs = np.where(coarse, coarse_costs, exact_costs)
    first_gains = np.where(coarse, coarse_gains, exact_gains)
    sold = (exact_costs >= 0) & (exact_gains > 0)
    scale = 1.0
    if not sold.any():
        return coarse_gains, exact_gains
    if int(first_costs[sold].sum()) <= budget_bytes:
        sold &= _beyond_its_share(np.where(sold, first_costs, 0), shares)
        if not sold.any():
            return coarse_gains, exact_gains
        scale = float(np.max(first_gains / np.maximum(first_costs, 1)))
    places = np.flatnonzero(sold)
    slopes = first_gains[places] / np.maximum(first_costs[places], 1)
    tensors = np.repeat(np.arange(len(sizes)), sizes)[places]
    count = np.maximum(np.bincount(tensors, minlength=len(sizes)), 1)
    mean = np.bincount(tensors, slopes, len(sizes)) / count
    turns = (np.arange(len(places)) * _STEP + _STEP) % 1
    # Smallest first: an item of weight w comes, on average, w times as early.
    keys = turns / (slopes / mean[tensors]) ** _POWER
    ranks = np.empty(len(places))
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(places))
    worth = np.zeros(len(exact_costs))
    worth[places] = scale * (2 - ranks / len(places)) * np.maximum(first_costs[places], 1)
    # A second look comes after every first one.
    further = np.maximum(exact_costs - first_costs, 0)
    seconds: npt.NDArray[np.float64] = worth + 0.5 * scale * further
    return (
        np.where(sold, np.where(coarse, worth, 0.0), coarse_gains),
        np.where(sold, np.where(coarse, seconds, worth), exact_gains),
    )


def _beyond_its_share(costs: Integers, shares: Shares | None) -> npt.NDArray[np.bool_]:
    """The items of groups whose shares do not pay for these costs of all of them."""
    if shares is None:
        return np.zeros(len(costs), np.bool_)
    wanted = np.bincount(shares.groups, costs, len(shares.most_bytes))
    return (wanted > shares.most_bytes)[shares.groups]
