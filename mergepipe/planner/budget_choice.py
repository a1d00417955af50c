"""Depths for all tensors within what a budget allows: in all, with the base, and to one expert."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.errors import OverBudget
from mergepipe.names import escape_for_terminal
from mergepipe.objects.depths import Depth
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.store import Tensors
from mergepipe.planner.budget import Budget, format_percent, too_small
from mergepipe.planner.coverage import spread
from mergepipe.planner.outliers import outliers
from mergepipe.planner.roots import Offer, Root
from mergepipe.planner.selection import Floats, Integers, Selection, Shares, select
from mergepipe.plans.costs import NOT_THERE, Depths
from mergepipe.sizes import format_size

Roots = Mapping[int, Root]


class Limits(Struct, frozen=True):
    """A budget in bytes, of one merge.

    with_base    what is read of bases counts too
    share_bytes  what one expert may get; None: all
    """

    total_bytes: int
    with_base: bool = False
    share_bytes: int | None = None
    max_share: float | None = None

    @classmethod
    def of(cls, budget: Budget, roots: Roots, raw_bytes: int, tensors: Tensors) -> Self | None:
        """What a budget comes to; None without one. raw_bytes: of the experts."""
        full = sum(root.full_bytes for root in roots.values())
        if budget.with_base:
            full += sum(root.base_bytes(root.costs.full) for root in roots.values())
            raw_bytes += _raw_bytes_of_bases(roots, tensors)
        limit = budget.limit_bytes(full_bytes=full, raw_bytes=raw_bytes)
        if limit is None:
            return None
        share = None if budget.max_share is None else int(budget.max_share * limit)
        return cls(limit, budget.with_base, share, budget.max_share)

    def allow_everything(self, roots: Roots) -> bool:
        """Whether the exact merge is within them."""
        full = sum(root.full_bytes for root in roots.values())
        if self.with_base:
            full += sum(root.base_bytes(root.costs.full) for root in roots.values())
        if full > self.total_bytes:
            return False
        most = max(_by_model(root.full_by_model() for root in roots.values()).values(), default=0)
        return self.share_bytes is None or most <= self.share_bytes

    def check(self, roots: Roots, names: Sequence[str]) -> None:
        """Raise OverBudget where they are less than what has to be read. names: of models."""
        base = self._base_floor(roots)
        forced = sum(root.forced_bytes for root in roots.values())
        if base + forced > self.total_bytes:
            option = "--budget-total" if self.with_base else "--budget"
            beside = f" and {format_size(base)} of the base" if base else ""
            why, hint = "", f"give at least {option} {base + forced}B"
            if forced:
                why = " (blocks without a profile, thresholds that no profile knows)"
                hint += "; mp analyze makes the profiles"
            raise OverBudget(
                f"{format_size(forced)} of the experts{beside} have to be read whatever is "
                f"chosen{why}; the budget is {format_size(self.total_bytes)}",
                hint,
            )
        if self.share_bytes is None or self.max_share is None:
            return
        for model, size in _by_model(root.forced_by_model() for root in roots.values()).items():
            if size > self.share_bytes:
                raise OverBudget(
                    f"{format_size(size)} of {escape_for_terminal(names[model])} have to be read "
                    f"whatever is chosen; --max-share {format_percent(self.max_share)} allows one "
                    f"expert {format_size(self.share_bytes)}",
                    "raise --max-share or --budget; mp analyze makes profiles that are missing",
                )

    def left_for_experts(self, roots: Roots) -> int:
        """What experts get at most."""
        return self.total_bytes - self._base_floor(roots)

    def hold(self, roots: Roots, depths: Mapping[int, Depths]) -> bool:
        """Whether reads to these depths are within them, bases included."""
        if not self.with_base:
            return True  # a choice for the experts keeps to what they may get
        spent = sum(
            root.expert_bytes(depths[number]) + root.base_bytes(depths[number])
            for number, root in roots.items()
        )
        return spent <= self.total_bytes

    def _base_floor(self, roots: Roots) -> int:
        """What is read of bases even if no choice is left."""
        if not self.with_base:
            return 0
        return sum(root.base_bytes(_depths(root, None)) for root in roots.values())


def choose(roots: Roots, limits: Limits) -> dict[int, Depths]:
    """The best depths within limits, a row per leaf of each tensor. Raises OverBudget.

    What of a base is read depends on where experts are: where it counts, the largest share of the
    experts is sought with which both fit.
    """
    offers = {number: root.offer() for number, root in roots.items()}
    most = limits.left_for_experts(roots)
    least = sum(root.forced_bytes for root in roots.values())
    chosen = _choose_within(roots, offers, most, limits)
    if limits.hold(roots, chosen):
        return chosen
    best: dict[int, Depths] | None = None
    # A choice is a step function of what it may spend: past a thousandth there is little to gain.
    while most - least > max(1, limits.total_bytes // 1024):
        middle = (most + least) // 2
        try:
            chosen = _choose_within(roots, offers, middle, limits)
        except OverBudget:
            least = middle
            continue
        if limits.hold(roots, chosen):
            best, least = chosen, middle
        else:
            most = middle
    if best is None:
        floor = sum(root.base_bytes(root.costs.full) for root in roots.values())
        raise OverBudget(
            f"a budget of {format_size(limits.total_bytes)} with the base in it reads nothing of "
            f"any expert; all of the base is {format_size(floor)}",
            "raise --budget-total, or give --budget, which counts the experts alone",
        )
    return best


def _choose_within(
    roots: Roots, offers: Mapping[int, Offer], limit: int, limits: Limits
) -> dict[int, Depths]:
    """Outliers get an even share first, and more only of what nobody else has a use for."""
    forced = _by_model(root.forced_by_model() for root in roots.values())
    most = dict.fromkeys(forced, limit if limits.share_bytes is None else limits.share_bytes)
    left = limit - sum(root.forced_bytes for root in roots.values())
    outlying = outliers([root.energies() for root in roots.values()])
    even = limit // max(1, len(most))
    within = {model: min(size, even) if model in outlying else size for model, size in most.items()}
    market = _Market.of(roots, offers)
    chosen = market.buy(left, forced, within)
    if outlying and chosen.spent_bytes < left:
        spent = market.spent_by_group(chosen.depths)
        more = (left - chosen.spent_bytes) // len(outlying)
        for model in outlying:
            bought = forced[model] + int(spent[model])
            within[model] = min(most[model], max(bought, within[model]) + more)
        # The others keep what they have: a block of an outlier's may cost more than all of theirs.
        theirs = np.isin(market.groups, list(outlying))
        kept_bytes = int(spent.sum()) - sum(int(spent[model]) for model in outlying)
        again = market.of_some(theirs).buy(left - kept_bytes, forced, within)
        chosen = msgspec.structs.replace(
            chosen,
            depths=np.where(theirs, again.depths, chosen.depths),
            spent_bytes=kept_bytes + again.spent_bytes,
        )
    if not chosen.spent_bytes and not sum(forced.values()):
        if chosen.least_bytes > limit:
            raise too_small(limit, chosen.least_bytes)
        if limits.share_bytes is not None and chosen.least_bytes > limits.share_bytes:
            raise _share_too_small(limits, chosen.least_bytes)
    depths = {}
    at = 0
    for number, root in roots.items():
        size = root.costs.equal.size
        depths[number] = _depths(root, chosen.depths[at : at + size])
        at += size
    return depths


class _Market(Struct, frozen=True):
    """What all tensors have to sell, one after another. groups: the model of each item."""

    coarse_costs: Integers
    coarse_gains: Floats
    exact_costs: Integers
    exact_gains: Floats
    sizes: tuple[int, ...]
    groups: Integers

    @classmethod
    def of(cls, roots: Roots, offers: Mapping[int, Offer]) -> Self:
        """Of all roots, in their order."""
        sold = list(offers.values())
        return cls(
            np.concatenate([offer.coarse_costs.ravel() for offer in sold]),
            np.concatenate([offer.coarse_gains.ravel() for offer in sold]),
            np.concatenate([offer.exact_costs.ravel() for offer in sold]),
            np.concatenate([offer.exact_gains.ravel() for offer in sold]),
            tuple(offer.exact_costs.size for offer in sold),
            np.concatenate(
                [
                    np.repeat(np.array(root.models, np.int64), root.costs.equal.shape[1])
                    for root in roots.values()
                ]
            ),
        )

    def of_some(self, items: npt.NDArray[np.bool_]) -> Self:
        """The same, where nothing else is for sale."""
        return msgspec.structs.replace(
            self,
            coarse_costs=np.where(items, self.coarse_costs, NOT_THERE),
            exact_costs=np.where(items, self.exact_costs, NOT_THERE),
        )

    def buy(self, left: int, forced: Mapping[int, int], within: Mapping[int, int]) -> Selection:
        """The best choice for `left` bytes.

        within  what each model may get in all; forced: of that, what it has already
        """
        purses = np.zeros(max(within, default=0) + 1, np.int64)
        for model, size in within.items():
            purses[model] = size - forced[model]
        binding = any(within[model] - size < left for model, size in forced.items())
        shares = Shares(self.groups, np.maximum(purses, 0)) if binding else None
        costs, gains = (self.coarse_costs, self.exact_costs), (self.coarse_gains, self.exact_gains)
        coarse_gains, exact_gains = spread(
            costs[0], gains[0], costs[1], gains[1], self.sizes, left, shares
        )
        return select(costs[0], coarse_gains, costs[1], exact_gains, left, shares)

    def spent_by_group(self, depths: Depths) -> Integers:
        """What a choice costs, by model."""
        costs = np.where(depths == Depth.EXACT, self.exact_costs, 0)
        costs = np.where(depths == Depth.COARSE, self.coarse_costs, costs)
        return np.bincount(self.groups, costs, int(self.groups.max(initial=0)) + 1).astype(np.int64)


def _share_too_small(limits: Limits, least_bytes: int) -> OverBudget:
    """The error of a share that buys nothing of any expert."""
    assert limits.share_bytes is not None
    return OverBudget(
        f"a share of {format_size(limits.share_bytes)} reads nothing of any expert; the least "
        f"that does is {format_size(least_bytes)}",
        "raise --max-share or the budget",
    )


def _depths(root: Root, chosen: Depths | None) -> Depths:
    """Chosen depths (None: nothing), and what is not for choice."""
    shape = root.costs.equal.shape
    depths = np.zeros(shape, np.uint8) if chosen is None else chosen.reshape(shape).copy()
    depths[root.forced] = Depth.EXACT
    depths[root.costs.equal] = Depth.EQUAL
    return depths


def _by_model(sizes: Iterable[Mapping[int, int]]) -> dict[int, int]:
    bytes_by_model: dict[int, int] = {}
    for by_model in sizes:
        for model, size in by_model.items():
            bytes_by_model[model] = bytes_by_model.get(model, 0) + size
    return bytes_by_model


def _raw_bytes_of_bases(roots: Roots, tensors: Tensors) -> int:
    """The own size of the tensors that are the bases of lines, each tensor once."""
    bases = {
        draft.unplanned.base.stored
        for root in roots.values()
        for draft in root.drafts.values()
        if draft.unplanned.base is not None and draft.unplanned.base.stored is not None
    }
    return sum(tensor_bytes(tensors[base]) for base in bases)
