"""Which commits of a history are listed."""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit


class LogFilter(Struct, frozen=True):
    """What a commit has to be: every part that is given has to fit.

    `since` and `until` in Unix seconds, both inclusive; `author`: a part of the name, upper and
    lower case alike; `among`: the only commits that may be listed; `changed`: whether one
    changed what is asked about.
    """

    since: int | None = None
    until: int | None = None
    author: str | None = None
    among: frozenset[ObjectId] | None = None
    changed: Callable[[Commit], bool] | None = None

    def select(
        self, commits: Iterable[tuple[ObjectId, Commit]]
    ) -> Iterator[tuple[ObjectId, Commit]]:
        """Those of `commits` that fit, in their order."""
        return (each for each in commits if self._fits(*each))

    def _fits(self, identity: ObjectId, commit: Commit) -> bool:
        return (
            (self.among is None or identity in self.among)
            and (self.since is None or commit.time >= self.since)
            and (self.until is None or commit.time <= self.until)
            and (self.author is None or self.author.casefold() in commit.author.casefold())
            and (self.changed is None or self.changed(commit))
        )
