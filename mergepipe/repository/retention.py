"""Which models of a history are kept, and which may go."""

import datetime
from collections.abc import Callable, Container, Iterable

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit
from mergepipe.repository.history import Commits, first_parents


class Retention(Struct, frozen=True):
    """What to keep of each branch's own line, beside its tip.

    last    so many of the newest commits
    daily   the newest of each of the last so many days that have any, in the author's own zone
    weekly  of each of the last so many weeks (ISO 8601: from Monday)
    """

    last: int = 1
    daily: int = 0
    weekly: int = 0

    def kept(self, line: Iterable[tuple[ObjectId, Commit]]) -> set[ObjectId]:
        """Those to keep of a line of commits, newest first."""
        commits = list(line)
        kept = {identity for identity, _ in commits[: max(1, self.last)]}
        kept |= _newest_of_each(commits, self.daily, lambda day: day.toordinal())
        kept |= _newest_of_each(commits, self.weekly, lambda day: (day.toordinal() - 1) // 7)
        return kept


def prunable(
    tips: Iterable[ObjectId],
    objects: Commits,
    retention: Retention,
    *,
    pinned: Iterable[ObjectId],
    pruned: Container[ObjectId],
) -> list[ObjectId]:
    """The commits of the lines of `tips` whose models may go, oldest of each line last.

    `pinned` commits stay, and so does what a kept model was trained from: it is the base of merges.
    Raises MissingObject.
    """
    lines = [list(first_parents(objects, tip)) for tip in tips]
    kept = set(pinned)
    for line in lines:
        kept |= retention.kept(line)
    bases = list(kept)
    while bases:
        base = objects.commit(bases.pop()).trained_from
        if base is not None and base not in kept:
            kept.add(base)
            bases.append(base)
    going = (identity for line in lines for identity, _ in line)
    return [each for each in dict.fromkeys(going) if each not in kept and each not in pruned]


def _newest_of_each(
    commits: list[tuple[ObjectId, Commit]], count: int, period: Callable[[datetime.date], int]
) -> set[ObjectId]:
    newest: dict[int, ObjectId] = {}
    for identity, commit in commits:
        at = period(_day(commit))
        if at not in newest:
            if len(newest) == count:
                break
            newest[at] = identity
    return set(newest.values())


def _day(commit: Commit) -> datetime.date:
    epoch = datetime.datetime(1970, 1, 1)
    try:
        return (epoch + datetime.timedelta(seconds=commit.time, minutes=commit.utc_offset)).date()
    except OverflowError:  # a clock that was wrong by millennia
        return epoch.date()
