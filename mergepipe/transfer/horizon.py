"""How far back a fetch goes: which commits come, and which are done without.

Reach is the reader's choice alone. Commits are read from the other side one by one, as any walk
reads them, so every kind of remote can be cloned shallow; docs/format-remote.md, "Shallow clones".
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Set

from msgspec import Struct, field

from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit

_ENDLESS = 1 << 62


class Reach(Struct, frozen=True):
    """How many commits of each line come: at most one of these.

    limit   so many, counted from each tip
    deepen  so many behind those that are the oldest here
    whole   all of them
    follow  as `limit`, for lines that begin elsewhere; what is new on lines that are here comes
            whole. This is how a shallow clone fetches if nothing else is said.

    Raises UsageError for two of them, and for less than one commit.
    """

    limit: int | None = None
    deepen: int | None = None
    whole: bool = False
    follow: int | None = None

    def __post_init__(self) -> None:
        counts = [each for each in (self.limit, self.deepen, self.follow) if each is not None]
        if len(counts) + self.whole > 1:
            raise UsageError("--depth, --deepen and --unshallow each say how far back: give one")
        if any(count < 1 for count in counts):
            raise UsageError(f"a depth is 1 or more commits, not {counts[0]}")

    @property
    def reaches_back(self) -> bool:
        """Whether history comes, too, that was done without so far."""
        return self.whole or self.limit is not None or self.deepen is not None


class Horizon(Struct, frozen=True):
    """What a fetch does not go behind.

    absent  commits that no walk of this fetch follows
    more    commits to bring beside the tips: they were done without before
    gone    commits to do without from now on; here: those that have come
    alone   merges that come without the models that they were made of
    """

    absent: frozenset[ObjectId] = frozenset()
    more: tuple[ObjectId, ...] = ()
    gone: frozenset[ObjectId] = frozenset()
    here: frozenset[ObjectId] = frozenset()
    alone: frozenset[ObjectId] = frozenset()


def horizon(
    read: Callable[[ObjectId], Commit],
    tips: Collection[ObjectId],
    reach: Reach,
    *,
    known: Set[ObjectId],
    ours: frozenset[ObjectId],
    theirs: frozenset[ObjectId],
) -> Horizon:
    """Where a fetch of `tips` ends.

    read    a commit as it is stored, here or there. Raises MissingObject, Corruption
    known   commits that are here
    ours, theirs  what is done without here, and there

    A commit that comes brings what it was trained from, however deep: the base of merges, and of
    what its bytes are a difference to.
    """
    search = _Search(read, reach, known, ours, theirs)
    search.run(tips)
    gone = frozenset(search.named - search.commits - known)
    new = search.commits - known
    return Horizon(
        absent=ours | gone,
        more=tuple(sorted(search.commits & ours)),
        gone=gone,
        here=frozenset(search.commits),
        alone=frozenset(each for each in new if not gone.isdisjoint(read(each).needed)),
    )


def trained_on(commit: Commit) -> ObjectId | None:
    """What a commit's model is a fine-tune of: as somebody said, or as its bytes suggest."""
    if commit.trained_from is not None:
        return commit.trained_from
    return None if commit.leans_on in commit.parents else commit.leans_on


class _Search(Struct):
    """Goes back from tips, those first that may go farthest."""

    read: Callable[[ObjectId], Commit]
    reach: Reach
    known: Set[ObjectId]
    ours: frozenset[ObjectId]
    theirs: frozenset[ObjectId]
    commits: set[ObjectId] = field(default_factory=set)
    named: set[ObjectId] = field(default_factory=set)
    lines: set[ObjectId] = field(default_factory=set)
    heap: list[tuple[int, ObjectId]] = field(default_factory=list)

    def run(self, tips: Iterable[ObjectId]) -> None:
        for tip in tips:
            self._put(tip, self._steps(tip))
        while self.heap:
            steps, identity = heapq.heappop(self.heap)
            if identity not in self.commits:
                self._visit(identity, -steps)

    def _steps(self, tip: ObjectId) -> int:
        """How many commits may come behind a tip."""
        if self.reach.limit is not None:
            return self.reach.limit - 1
        if self.reach.follow is None:
            return _ENDLESS
        line: list[ObjectId] = []
        following: ObjectId | None = tip
        while following is not None and following not in self.known:
            line.append(following)
            parents = self.read(following).parents
            following = parents[0] if parents and self._follows(parents[0]) else None
        if following is None:
            return self.reach.follow - 1
        self.lines.update(line)
        return 0

    def _visit(self, identity: ObjectId, steps: int) -> None:
        self.commits.add(identity)
        if identity in self.known and not self.reach.reaches_back:
            return
        commit = self.read(identity)
        self.named.update(commit.needed)
        if steps > 0:
            wanted: tuple[ObjectId | None, ...] = commit.needed
        else:
            line = commit.parents[:1] if identity in self.lines else ()
            wanted = (*line, trained_on(commit))
        for other in wanted:
            if other is not None and self._follows(other):
                self._put(other, self._behind(other, max(steps - 1, 0)))

    def _behind(self, commit: ObjectId, steps: int) -> int:
        deepen = self.reach.deepen
        return steps if deepen is None or commit not in self.ours else min(steps, deepen - 1)

    def _follows(self, commit: ObjectId) -> bool:
        """Whether the commit can be had, and may be."""
        if commit in self.known:
            return True
        if commit in self.ours and not self.reach.reaches_back:
            return False
        return commit not in self.theirs

    def _put(self, commit: ObjectId, steps: int) -> None:
        if commit not in self.commits:
            heapq.heappush(self.heap, (-steps, commit))
