"""What a set of commits needs, in the order in which it may be published, less what is there.

Used by the side that sends, on its own objects, and by the side that admits, on objects that a
stranger sent.
"""

import heapq
from collections.abc import Container, Iterable, Iterator, Mapping

from msgspec import Struct

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import decode
from mergepipe.objects.grid import tensor_size
from mergepipe.objects.paths import check_files
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.references import Reference, references
from mergepipe.repository.closure import Needed, ObjectSource, closure
from mergepipe.repository.pruned import NONE, Pruned

# How far known history is followed once nothing unknown is left, for clocks that were wrong.
_LOOK_BEYOND = 32


class NewCommits(Struct, frozen=True):
    """What lies between known commits and new ones.

    commits   not known, each after those it needs (parents and base)
    boundary  the known ones that these lean on; `objects_of` need not look behind them
    """

    commits: tuple[ObjectId, ...]
    boundary: tuple[ObjectId, ...]


def commits_between(
    objects: ObjectSource,
    tips: Iterable[ObjectId],
    known: Iterable[ObjectId],
    absent: frozenset[ObjectId] = frozenset(),
) -> NewCommits:
    """The commits that `tips` need and `known` ones, with all their history, do not bring.

    Known commits that are not in `objects` tell nothing; nobody needs `absent` ones. Reads
    both histories no further back than where they meet; where clocks were wrong by more than a few
    commits, some that are known may come too. Raises MissingObject, Corruption (a cycle, or what
    is no commit).
    """
    return _Painting(objects, absent).run(tips, known)


def objects_of(
    objects: ObjectSource,
    commits: Iterable[ObjectId],
    known: Mapping[ObjectId, str],
    pruned: Pruned = NONE,
    inputs: bool = True,
    alone: Container[ObjectId] = frozenset(),
) -> Iterator[Needed]:
    """Every object that `commits` need, each once, after everything that it names itself.

    Of `pruned` ones it is the history that they need, not the model; `inputs` and `alone` as for
    `closure`.
    `known` maps ids to kinds: these are there with all they need, and are neither read nor yielded
    (`known_objects` gives them for the commits of a boundary). Raises as `closure`, and Corruption
    for paths that no snapshot may hold, and files whose tensors do not add up to their size.
    """
    sizes: dict[ObjectId, int] = {}

    def check(needed: Needed) -> None:
        if isinstance(needed.record, Snapshot):
            check_files(needed.record, _named(needed.id))
        elif isinstance(needed.record, Tensor):
            sizes[needed.id] = tensor_size(needed.record, _named(needed.id))[1]

    def size_of(tensor: ObjectId) -> int:
        if tensor not in sizes:
            record = decode(objects.canonical(tensor), Tensor, _named(tensor))
            sizes[tensor] = tensor_size(record, _named(tensor))[1]
        return sizes[tensor]

    roots = (Reference(commit, Commit.KIND, "commit") for commit in commits)
    for needed in closure(
        roots, objects, known=known, pruned=pruned, inputs=inputs, alone=alone, check=check
    ):
        if isinstance(needed.record, Snapshot):
            for file in needed.record.files:
                size = sum(map(size_of, file.tensor_ids()))
                if size != file.size:
                    raise Corruption(
                        f"{_named(needed.id)}: file {quoted(file.path)} of {file.size} bytes "
                        f"has {size} bytes in its tensors"
                    )
        yield needed


def known_objects(objects: ObjectSource, commits: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """What whole commits surely bring: themselves, snapshot, tensors, profile, manifest; by kind.

    A shortcut, not a closure: enough to leave out what the next commit shares with them. What is
    not in `objects` is left out.
    """
    kinds: dict[ObjectId, str] = {}
    for identity in commits:
        try:
            commit = decode(objects.canonical(identity), Commit, _named(identity))
            kinds[identity] = Commit.KIND
            for reference in references(commit):
                if reference.kind not in (None, Commit.KIND, Snapshot.KIND):
                    kinds[reference.id] = reference.kind
            if commit.snapshot in kinds:
                continue
            snapshot = decode(objects.canonical(commit.snapshot), Snapshot, _named(commit.snapshot))
        except MissingObject:
            continue
        kinds[commit.snapshot] = Snapshot.KIND
        kinds.update(dict.fromkeys(snapshot.tensor_ids(), Tensor.KIND))
    return kinds


class _Painting:
    """Two colours flow from commits to what they need, newest first, until nothing new is left."""

    WANTED, KNOWN = 1, 2

    def __init__(self, objects: ObjectSource, absent: frozenset[ObjectId]) -> None:
        self._objects = objects
        self._absent = absent
        self._colours: dict[ObjectId, int] = {}
        self._needs: dict[ObjectId, tuple[ObjectId, ...]] = {}
        self._times: dict[ObjectId, int] = {}
        self._heap: list[tuple[int, ObjectId]] = []
        self._queued: set[ObjectId] = set()
        self._fresh: set[ObjectId] = set()

    def run(self, tips: Iterable[ObjectId], known: Iterable[ObjectId]) -> NewCommits:
        wanted = list(dict.fromkeys(tips))
        for tip in known:
            try:
                self._paint(tip, self.KNOWN, None)
            except MissingObject:
                continue  # history that only the other side has
        for tip in wanted:
            self._paint(tip, self.WANTED, None)
        beyond = 0
        while self._heap and (self._fresh or beyond < _LOOK_BEYOND):
            beyond = 0 if self._fresh else beyond + 1
            _, commit = heapq.heappop(self._heap)
            self._queued.discard(commit)
            self._fresh.discard(commit)
            for other in self._needs[commit]:
                self._paint(other, self._colours[commit], commit)
        return self._sorted(wanted)

    def _paint(self, commit: ObjectId, colour: int, child: ObjectId | None) -> None:
        before = self._colours.get(commit, 0)
        after = before | colour
        if after == before:
            return
        if commit not in self._needs:
            try:
                record = decode(self._objects.canonical(commit), Commit, _named(commit))
            except Corruption as error:
                raise error if child is None else _blamed(error, child) from None
            self._needs[commit] = record.without(self._absent).needed
            self._times[commit] = record.time
        self._colours[commit] = after
        if commit not in self._queued:
            self._queued.add(commit)
            heapq.heappush(self._heap, (-self._times[commit], commit))
        if after & self.KNOWN:
            self._fresh.discard(commit)
        else:
            self._fresh.add(commit)

    def _sorted(self, tips: Iterable[ObjectId]) -> NewCommits:
        """Depth first, so that what a commit needs comes before it."""
        order: list[ObjectId] = []
        boundary: dict[ObjectId, None] = {}
        done: set[ObjectId] = set()
        for tip in tips:
            path: dict[ObjectId, Iterator[ObjectId]] = {}
            todo: ObjectId | None = tip
            while True:
                if todo is None:
                    if not path:
                        break
                    commit, rest = next(reversed(path.items()))
                    todo = next(rest, None)
                    if todo is None:
                        del path[commit]
                        done.add(commit)
                        order.append(commit)
                elif todo in path:
                    raise Corruption(f"commit {todo.hex()} is among its own ancestors")
                elif self._colours[todo] & self.KNOWN:
                    boundary[todo] = None
                    todo = None
                elif todo in done:
                    todo = None
                else:
                    path[todo] = iter(self._needs[todo])
                    todo = None
        return NewCommits(tuple(order), tuple(boundary))


def _blamed(error: Corruption, user: ObjectId) -> Corruption:
    return type(error)(f"{error.message} (commit {user.hex()[:12]} needs it)", error.hint)


def _named(identity: ObjectId) -> str:
    return f"object {identity.hex()}"
