"""Which depths to buy: the best gain per byte until the budget is spent.

Each item (an expert's block) has up to two depths beyond "not at all". The points (cost, gain) of
its depths have an upper hull; its edges are what can be bought, each only after the one before it.
Edges are taken in the order of their slope, as rate-distortion optimisation does (Shoham and
Gersho, IEEE ASSP 36(9), 1988); one that no longer fits is passed over, with those after it on its
hull. So the gain is at most one edge short of the best there is, and never falls as the budget
grows.
"""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.objects.depths import Depth

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Selection(Struct, frozen=True):
    """depths: uint8 per item. spent_bytes, gain: of all of them. least_bytes: the cheapest edge."""

    depths: npt.NDArray[np.uint8]
    spent_bytes: int
    gain: float
    least_bytes: int


class Shares(Struct, frozen=True):
    """groups: of each item, counted from 0. most_bytes: what the items of each may cost at most."""

    groups: Integers
    most_bytes: Integers


class _Edges(Struct, frozen=True):
    """Steps on the hulls, steepest first. `second`: a step from coarse to exact."""

    item: Integers
    cost: Integers
    gain: Floats
    depth: npt.NDArray[np.uint8]
    second: npt.NDArray[np.bool_]


def select(
    coarse_costs: Integers,
    coarse_gains: Floats,
    exact_costs: Integers,
    exact_gains: Floats,
    budget_bytes: int,
    shares: Shares | None = None,
) -> Selection:
    """Depths for items; all arrays of one length.

    coarse_costs  bytes of the coarse depth, negative where there is none
    exact_costs   bytes of the exact depth in all, negative where the item is not for sale
    shares        how much of the budget groups of items may get

    Ties go to the earlier item: same arrays, same selection.
    """
    edges = _hulls(coarse_costs, coarse_gains, exact_costs, exact_gains)
    taken = _take(edges, len(exact_costs), budget_bytes, shares)
    depths = np.zeros(len(exact_costs), np.uint8)
    np.maximum.at(depths, edges.item[taken], edges.depth[taken])
    least = int(edges.cost[~edges.second].min()) if len(edges.cost) else 0
    gain = float(np.cumsum(edges.gain[taken])[-1]) if taken.any() else 0.0
    return Selection(depths, int(edges.cost[taken].sum()), gain, least)


def on_hull(
    coarse_costs: Integers, coarse_gains: Floats, exact_costs: Integers, exact_gains: Floats
) -> npt.NDArray[np.bool_]:
    """The items that are read coarsely before they are read exactly.

    Where that is cheaper, and gains more per byte than going on from there to exact.
    """
    with np.errstate(invalid="ignore"):
        rise = exact_gains - coarse_gains
        both: npt.NDArray[np.bool_] = (
            (exact_costs >= 0)
            & (exact_gains > 0)
            & (coarse_costs >= 0)
            & (coarse_gains > 0)
            & (coarse_costs < exact_costs)
            & (coarse_gains * (exact_costs - coarse_costs) >= rise * coarse_costs)
        )
    return both


def _hulls(
    coarse_costs: Integers, coarse_gains: Floats, exact_costs: Integers, exact_gains: Floats
) -> _Edges:
    sold = (exact_costs >= 0) & (exact_gains > 0)
    coarse = on_hull(coarse_costs, coarse_gains, exact_costs, exact_gains)
    with np.errstate(invalid="ignore"):
        rise = exact_gains - coarse_gains
    onward = coarse & (rise > 0)
    whole = sold & ~coarse
    first, second, only = (np.flatnonzero(mask) for mask in (coarse, onward, whole))
    item = np.concatenate((first, second, only))
    cost = np.concatenate(
        (coarse_costs[first], exact_costs[second] - coarse_costs[second], exact_costs[only])
    )
    gain = np.concatenate((coarse_gains[first], rise[second], exact_gains[only]))
    sizes = (len(first), len(second), len(only))
    depth = np.repeat(np.array((Depth.COARSE, Depth.EXACT, Depth.EXACT), np.uint8), sizes)
    is_second = np.repeat(np.array((False, True, False)), sizes)
    slope = gain / np.maximum(cost, 1)  # what costs nothing comes early, and always fits
    # Never before the edge it follows, however the divisions were rounded.
    before = np.searchsorted(first, second)
    slope[is_second] = np.minimum(slope[is_second], slope[before])
    order = np.lexsort((is_second, item, -slope))
    return _Edges(item[order], cost[order], gain[order], depth[order], is_second[order])


def _take(
    edges: _Edges, items: int, budget_bytes: int, shares: Shares | None
) -> npt.NDArray[np.bool_]:
    """First fit in order, in runs: which edges are bought."""
    taken = np.zeros(len(edges.item), np.bool_)
    passed_over = np.zeros(items, np.bool_)
    # The first purse is the whole budget's, the others those of groups.
    purses = np.array([budget_bytes], np.int64)
    group = np.zeros(len(edges.item), np.int64)
    if shares is not None:
        purses = np.concatenate((purses, shares.most_bytes))
        group = shares.groups[edges.item] + 1
    rest = np.arange(len(edges.item))
    while len(rest):
        # What does not fit now never will, nor what lies beyond it on its hull.
        fits = edges.cost[rest] <= np.minimum(purses[0], purses[group[rest]])
        passed_over[edges.item[rest[~fits]]] = True
        rest = rest[fits & ~(edges.second[rest] & passed_over[edges.item[rest]])]
        costs, groups = edges.cost[rest], group[rest]
        run = int(np.searchsorted(np.cumsum(costs), purses[0], side="right"))
        for number in range(1, len(purses)):
            within = np.cumsum(np.where(groups[:run] == number, costs[:run], 0))
            run = int(np.searchsorted(within, purses[number], side="right"))
        taken[rest[:run]] = True
        spent = np.bincount(groups[:run], costs[:run], len(purses)).astype(np.int64)
        purses -= spent
        purses[0] -= int(spent[1:].sum())
        rest = rest[run:]
    return taken
