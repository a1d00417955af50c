"""Walking history: order, ancestry, common bases, and everything that a set of commits needs.

Commits hold no generation number and their clocks may be wrong, so order comes from parents;
times only decide between commits that do not descend from each other.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit

# How far a walk looks beyond the next commit for a child with a wrong clock (git's SLOP is 5).
_LOOK_AHEAD = 32


class Commits(Protocol):
    """What a walk needs of the object store."""

    def commit(self, commit_id: ObjectId, /) -> Commit:
        """The commit with this id. Raises MissingObject."""
        ...


def walk(
    objects: Commits, tips: Iterable[ObjectId], *, topological: bool = False
) -> Iterator[tuple[ObjectId, Commit]]:
    """Every commit reachable from `tips`, newest first, each once. Raises MissingObject.

    With `topological`, children always come before their parents; the whole history is read
    before the first commit comes. Without, the walk reads little more than it yields, and children
    come before parents wherever

    * history is a single line, or times never decrease from parent to child (equal ones may), or
    * a clock was wrong on a side branch that joins again within 32 commits.

    So the first N of a line of commits cost N + 1 reads, whatever the clocks say.
    """
    return _Walk(objects, tips).run(None if topological else _LOOK_AHEAD)


class _Walk:
    """Commits are *discovered* (read), then *explored* (their parents are known), then yielded.

    A commit is ready when every child that was explored has been yielded. The newest ready one is
    yielded as soon as nothing that is still unexplored could turn out to be its child.
    """

    def __init__(self, objects: Commits, tips: Iterable[ObjectId]) -> None:
        self._objects = objects
        self._commits: dict[ObjectId, Commit] = {}
        self._rank: dict[ObjectId, int] = {}
        # Its time, but never after a child's: a clock in the future is put right as it is met.
        self._time: dict[ObjectId, int] = {}
        self._children: dict[ObjectId, int] = {}
        self._explored: set[ObjectId] = set()
        self._done: set[ObjectId] = set()
        self._frontier: list[tuple[int, int, ObjectId]] = []
        self._ready: list[tuple[int, int, ObjectId]] = []
        self._ahead = 0
        for tip in tips:
            self._discover(tip, None)
        self._childless = len(self._commits)

    def run(self, look_ahead: int | None) -> Iterator[tuple[ObjectId, Commit]]:
        while True:
            while self._may_be_a_child(look_ahead):
                self._explore()
            if not self._ready:
                return
            _, _, commit_id = heapq.heappop(self._ready)
            if commit_id in self._done or self._children[commit_id]:
                continue
            self._done.add(commit_id)
            self._childless -= 1
            self._ahead -= 1
            commit = self._commits.pop(commit_id)
            yield commit_id, commit
            for parent in set(commit.parents):
                self._children[parent] -= 1
                if not self._children[parent] and parent not in self._done:
                    self._childless += 1
                    if parent in self._explored:
                        self._push(self._ready, parent)

    def _may_be_a_child(self, look_ahead: int | None) -> bool:
        """Whether an unexplored commit could have the next ready one for a parent."""
        self._drop_stale()
        if not self._frontier:
            return False
        if not self._ready or look_ahead is None:
            return True
        if self._childless == 1:
            # All that is not yielded yet descends from nothing but this one commit.
            return False
        return self._frontier[0][0] <= self._ready[0][0] or self._ahead < look_ahead

    def _drop_stale(self) -> None:
        while self._ready and (
            self._ready[0][2] in self._done or self._children[self._ready[0][2]]
        ):
            heapq.heappop(self._ready)
        while self._frontier and self._frontier[0][2] in self._explored:
            heapq.heappop(self._frontier)

    def _explore(self) -> None:
        _, _, commit_id = heapq.heappop(self._frontier)
        self._explored.add(commit_id)
        self._ahead += 1
        # A parent named twice is one edge.
        for parent in dict.fromkeys(self._commits[commit_id].parents):
            self._discover(parent, commit_id)
        if not self._children[commit_id]:
            self._push(self._ready, commit_id)

    def _discover(self, commit_id: ObjectId, child: ObjectId | None) -> None:
        if commit_id not in self._rank:
            self._commits[commit_id] = self._objects.commit(commit_id)
            self._rank[commit_id] = len(self._rank)
            self._time[commit_id] = self._commits[commit_id].time
            self._children[commit_id] = 0
            new = True
        else:
            new = False
        if child is not None:
            if not new and not self._children[commit_id] and commit_id not in self._done:
                self._childless -= 1
            self._children[commit_id] += 1
            if self._time[commit_id] > self._time[child]:
                self._time[commit_id] = self._time[child]
                new = True
        if new and commit_id not in self._explored:
            self._push(self._frontier, commit_id)

    def _push(self, heap: list[tuple[int, int, ObjectId]], commit_id: ObjectId) -> None:
        heapq.heappush(heap, (-self._time[commit_id], self._rank[commit_id], commit_id))


def hidden(objects: Commits, groups: Sequence[Sequence[ObjectId]]) -> frozenset[ObjectId]:
    """The commits that the history of every member of a group holds, for any of the groups."""
    commits: set[ObjectId] = set()
    for group in groups:
        histories = [set(_newest_first(objects, [tip])) for tip in group]
        commits |= set.intersection(*histories)
    return frozenset(commits)


def is_ancestor(objects: Commits, ancestor: ObjectId, descendant: ObjectId) -> bool:
    """Whether `descendant` is, or descends from, `ancestor`. A "no" reads all its history."""
    return any(commit_id == ancestor for commit_id in _newest_first(objects, [descendant]))


def _newest_first(objects: Commits, tips: Iterable[ObjectId]) -> Iterator[ObjectId]:
    """Reachable commits by time alone: for searches, which need no order to be right."""
    seen = set(tips)
    heap = [(-objects.commit(commit_id).time, commit_id) for commit_id in seen]
    heapq.heapify(heap)
    while heap:
        _, commit_id = heapq.heappop(heap)
        yield commit_id
        for parent in objects.commit(commit_id).parents:
            if parent not in seen:
                seen.add(parent)
                heapq.heappush(heap, (-objects.commit(parent).time, parent))


def first_parents(objects: Commits, tip: ObjectId) -> Iterator[tuple[ObjectId, Commit]]:
    """A branch's own line: each commit's first parent, newest first. Raises MissingObject."""
    following: ObjectId | None = tip
    while following is not None:
        commit = objects.commit(following)
        yield following, commit
        following = commit.parents[0] if commit.parents else None


def descendants(
    objects: Commits, ancestors: Iterable[ObjectId], tips: Iterable[ObjectId]
) -> Iterator[tuple[ObjectId, Commit]]:
    """Commits of the history of `tips` that have one of `ancestors` among their lineage.

    Lineage is parents (of a merge: what was merged) and what a model was trained from; what its
    bytes lean on is storage, not lineage. Newest first; `ancestors` themselves are not among them.
    """
    commits = dict(reachable_commits(objects, tips))
    children: dict[ObjectId, list[ObjectId]] = {}
    for identity, commit in commits.items():
        for above in commit.lineage:
            children.setdefault(above, []).append(identity)
    waiting = list(ancestors)
    below: set[ObjectId] = set()
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in below:
                below.add(child)
                waiting.append(child)
    for identity, commit in walk(objects, tips, topological=True):
        if identity in below:
            below.discard(identity)
            yield identity, commit
    # What no branch holds as a parent: a base, or what one leans on.
    for identity in sorted(below, key=lambda one: (-commits[one].time, one)):
        yield identity, commits[identity]


def merge_bases(objects: Commits, tips: Sequence[ObjectId]) -> list[ObjectId]:
    """The best common ancestors of all `tips`: none is an ancestor of another; newest first.

    Empty if they share no history, several after a criss-cross merge. Colours flow from each tip
    to its ancestors; a commit with all colours is common, and what lies behind it is stale
    (git's paint-down-to-common, without its trust in clocks).
    """
    everything = (1 << len(tips)) - 1
    stale = 1 << len(tips)
    commits: dict[ObjectId, Commit] = {}
    colours: dict[ObjectId, int] = {}
    heap: list[tuple[int, ObjectId]] = []
    queued: set[ObjectId] = set()
    # What is queued and not stale: once there is none, nothing new can be found.
    fresh: set[ObjectId] = set()

    def paint(commit_id: ObjectId, colour: int) -> None:
        before = colours.get(commit_id, 0)
        after = before | colour
        if after == before:
            return
        colours[commit_id] = after
        if commit_id not in commits:
            commits[commit_id] = objects.commit(commit_id)
        if commit_id not in queued:
            queued.add(commit_id)
            heapq.heappush(heap, (-commits[commit_id].time, commit_id))
        if after & stale:
            fresh.discard(commit_id)
        else:
            fresh.add(commit_id)

    for number, tip in enumerate(tips):
        paint(tip, 1 << number)
    common: dict[ObjectId, None] = {}
    while fresh:
        _, commit_id = heapq.heappop(heap)
        queued.discard(commit_id)
        fresh.discard(commit_id)
        colour = colours[commit_id]
        if colour & everything == everything:
            if not colour & stale:
                common[commit_id] = None
            colour |= stale
        for parent in commits[commit_id].parents:
            paint(parent, colour)
    candidates = [commit_id for commit_id in common if not colours[commit_id] & stale]
    return _independent(objects, candidates, commits)


def _independent(
    objects: Commits, candidates: list[ObjectId], commits: dict[ObjectId, Commit]
) -> list[ObjectId]:
    """Those of `candidates` that no other one descends from, newest first."""
    best = [
        commit_id
        for commit_id in candidates
        if not any(
            other != commit_id and is_ancestor(objects, commit_id, other) for other in candidates
        )
    ]
    return sorted(best, key=lambda commit_id: (-commits[commit_id].time, commit_id))


def merge_base(objects: Commits, tips: Sequence[ObjectId]) -> ObjectId | None:
    """The newest of the best common ancestors of all `tips`; None if they share no history."""
    common = merge_bases(objects, tips)
    return common[0] if common else None


def reachable_commits(
    objects: Commits, tips: Iterable[ObjectId], *, excluded: Iterable[ObjectId] = ()
) -> Iterator[tuple[ObjectId, Commit]]:
    """Every commit that `tips` need (parents and bases), each once, in no useful order.

    `excluded` commits are taken as known, with all that they need.
    """
    seen = {known for known, _ in reachable_commits(objects, excluded)} if excluded else set()
    stack = [tip for tip in dict.fromkeys(tips) if tip not in seen]
    seen.update(stack)
    while stack:
        commit_id = stack.pop()
        commit = objects.commit(commit_id)
        yield commit_id, commit
        for other in commit.needed:
            if other not in seen:
                seen.add(other)
                stack.append(other)
