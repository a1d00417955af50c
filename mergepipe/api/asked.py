"""What plans were asked for with, kept by their ids: a plan object holds only what is merged.

Two budgets that buy the same are the same plan, and so is a budget that buys everything and none.
Kept in the index, which may be lost, and in the commit of a merge, which stays.
"""

from typing import TYPE_CHECKING, Self

import msgspec

from mergepipe.ids import ObjectId

if TYPE_CHECKING:
    from mergepipe.packs.storage import Storage
    from mergepipe.planner.build import PlannedMerge

_CACHED = b"a/"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget as text, as options take it, and how the plan's models were named, in its order.

    At most one of the two budgets is given; none: the exact merge was asked for, or nobody knows.
    `budget_bytes` is what it came to.
    """

    budget: str | None = None
    budget_total: str | None = None
    max_share: str | None = None
    names: tuple[str, ...] = ()
    budget_bytes: int | None = None

    @classmethod
    def of(cls, planned: "PlannedMerge") -> Self:
        """What a plan was made with."""
        from mergepipe.planner.budget import format_percent

        budget = planned.budget
        share = None if budget.max_share is None else format_percent(budget.max_share)
        return cls(
            None if budget.with_base else budget.text,
            budget.text if budget.with_base else None,
            share,
            tuple(model.label for model in planned.merge.models),
            planned.costs.budget_bytes,
        )

    @property
    def trailer(self) -> str:
        """The lines that a merge's commit ends with (docs/format-merge.md)."""
        lines = [f"{key}: {value}" for key, value in self._pairs() if value is not None]
        return "\n".join(lines)

    def _pairs(self) -> list[tuple[str, str | None]]:
        values = (self.budget, self.budget_total, self.max_share)
        return list(zip(_KEYS, values, strict=True))


NOTHING_ASKED = Asked()
_KEYS = ("Budget", "Budget-Total", "Max-Share")


def of_message(message: str) -> Asked:
    """What a merge was asked for with, by the last lines of its commit's message."""
    settings: dict[str, str] = {}
    for line in reversed(message.rstrip().splitlines()):
        key, colon, value = line.partition(": ")
        if not colon or key not in _KEYS:
            break
        settings[key] = value.strip()
    budget, total, share = (settings.get(key) for key in _KEYS)
    return Asked(budget, total, share)


def remember(storage: "Storage", plan: ObjectId, asked: Asked) -> None:
    """Keep what a plan was asked for with; whoever plans the same last is whom it is kept for."""
    storage.index.cache([(_CACHED + plan, msgspec.json.encode(asked))])


def recall(storage: "Storage", plan: ObjectId) -> Asked | None:
    """What a plan was asked for with, if that is known."""
    with storage.view() as view:
        value = view.cached(_CACHED + plan)
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=Asked)
    except (msgspec.DecodeError, ValueError):
        return None  # of another version
