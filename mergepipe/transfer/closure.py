"""What a set of commits needs, in the order in which it may be published, less what is there.

Used by the side that sends, on its own objects, and by the side that admits, on objects that a
stranger sent: nothing is believed of an object but what its bytes say, and those have been hashed.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from mergepipe.dtypes import DType, byte_length, dtype_of
from mergepipe.errors import Corruption, MalformedFile, MissingObject, UnsafePath
from mergepipe.ids import ID_BYTES, BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import decode, kind_of
from mergepipe.objects.grid import spans
from mergepipe.objects.paths import check_paths
from mergepipe.objects.records import Commit, FileEntry, Snapshot, Tensor
from mergepipe.repository.history import file_tensors
from mergepipe.repository.references import references

# How far known history is followed once nothing unknown is left, for clocks that were wrong.
_LOOK_BEYOND = 32


class ObjectSource(Protocol):
    """Where a walk reads objects. `objects.store.ObjectStore` is one."""

    def canonical(self, identity: ObjectId, /) -> bytes:
        """The object's bytes, their hash compared. Raises MissingObject, Corruption."""
        ...

    def present(self, candidates: Iterable[ObjectId], /) -> list[ObjectId]:
        """Those of some values that are ids of objects here, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class NewCommits:
    """What lies between known commits and new ones.

    commits   not known, each after those it needs (parents and base)
    boundary  the known ones that these lean on; `objects_of` need not look behind them
    """

    commits: tuple[ObjectId, ...]
    boundary: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class Needed:
    """An object of a closure, with its verified bytes."""

    id: ObjectId
    kind: str
    canonical: bytes


@dataclass(frozen=True, slots=True)
class BlockUse:
    """A block as a tensor uses it; `length` in bytes."""

    id: BlockId
    length: int
    dtype: DType


def commits_between(
    objects: ObjectSource, tips: Iterable[ObjectId], known: Iterable[ObjectId]
) -> NewCommits:
    """The commits that `tips` need and `known` ones, with all their history, do not bring.

    Known commits that are not in `objects` tell nothing. Reads both histories no further back than
    where they meet; where clocks were wrong by more than a few commits, some that are known may
    come too. Raises MissingObject, Corruption (a cycle, or what is no commit).
    """
    return _Painting(objects).run(tips, known)


def objects_of(
    objects: ObjectSource, commits: Iterable[ObjectId], known: Mapping[ObjectId, str]
) -> Iterator[Needed]:
    """Every object that `commits` need, each once, after everything that it names itself.

    `known` maps ids to kinds: these are there with all they need, and are neither read nor yielded
    (`known_objects` gives them for the commits of a boundary). Follows what a commit, snapshot or
    tensor names, and what profiles, plans, manifests and unknown kinds name as far as it is in
    `objects`, as gc does. Raises MissingObject that says what needs it; Corruption for an object of
    another kind than its use says, a cycle, and files whose tensors do not add up to their size.
    """
    return _Closure(objects, known).run(commits)


def known_objects(objects: ObjectSource, commits: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """What whole commits surely bring: themselves, snapshot, tensors, profile, manifest; by kind.

    A shortcut, not a closure: enough to leave out what the next commit shares with them. What is
    not in `objects` is left out.
    """
    found: dict[ObjectId, str] = {}
    for identity in commits:
        try:
            commit = decode(objects.canonical(identity), Commit, _named(identity))
        except MissingObject:
            continue
        found[identity] = Commit.KIND
        beside = ((commit.profile, "profile"), (commit.manifest, "manifest"))
        found.update((other, kind) for other, kind in beside if other is not None)
        if commit.snapshot in found:
            continue
        try:
            snapshot = decode(objects.canonical(commit.snapshot), Snapshot, _named(commit.snapshot))
        except MissingObject:
            continue
        found[commit.snapshot] = Snapshot.KIND
        for file in snapshot.files:
            found.update(dict.fromkeys(file_tensors(file), Tensor.KIND))
    return found


def blocks_of(tensor: Needed | tuple[ObjectId, bytes]) -> list[BlockUse]:
    """The blocks of a tensor object, in order. Raises Corruption if they cannot make the tensor."""
    identity, canonical = (tensor.id, tensor.canonical) if isinstance(tensor, Needed) else tensor
    what = f"tensor {identity.hex()}"
    record = decode(canonical, Tensor, what)
    dtype, size = _size(record, what)
    # Counted before they are listed: a hostile tensor may claim 2^60 bytes in blocks of one.
    count, rest = divmod(len(record.blocks), ID_BYTES)
    if rest:
        raise Corruption(f"{what}: its list of blocks has {len(record.blocks)} bytes")
    if count != -(-size // record.block_bytes):
        raise Corruption(f"{what} has {count} blocks for {size} bytes")
    blocks = record.block_ids()
    lengths = spans(size, record.block_bytes)
    return [
        BlockUse(block, end - begin, dtype)
        for block, (begin, end) in zip(blocks, lengths, strict=True)
    ]


class _Painting:
    """Two colours flow from commits to what they need, newest first, until nothing new is left."""

    WANTED, KNOWN = 1, 2

    def __init__(self, objects: ObjectSource) -> None:
        self._objects = objects
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
            except MissingObject as error:
                raise error if child is None else _missing(error, child) from None
            except Corruption as error:
                raise error if child is None else _blamed(error, child) from None
            self._needs[commit] = record.needed
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


@dataclass(slots=True)
class _Frame:
    """An object whose own needs are being walked."""

    object: Needed
    rest: Iterator[tuple[ObjectId, str | None]]


class _Closure:
    """A depth-first walk; an object is yielded once all it needs has been."""

    def __init__(self, objects: ObjectSource, known: Mapping[ObjectId, str]) -> None:
        self._objects = objects
        self._known = known
        self._kinds: dict[ObjectId, str] = {}
        self._sizes: dict[ObjectId, int] = {}
        self._open: set[ObjectId] = set()

    def run(self, commits: Iterable[ObjectId]) -> Iterator[Needed]:
        for tip in commits:
            yield from self._walk(tip)

    def _walk(self, tip: ObjectId) -> Iterator[Needed]:
        path: list[_Frame] = []
        self._enter(tip, Commit.KIND, path)
        while path:
            frame = path[-1]
            for other, kind in frame.rest:
                if self._enter(other, kind, path):
                    break
            else:
                path.pop()
                self._open.discard(frame.object.id)
                self._kinds[frame.object.id] = frame.object.kind
                if frame.object.kind == Snapshot.KIND:
                    self._check_files(frame.object)
                yield frame.object

    def _enter(self, identity: ObjectId, kind: str | None, path: list[_Frame]) -> bool:
        """Put an object on the path, unless it is known or was walked. Checks its kind."""
        user = path[-1].object if path else None
        met = self._kinds.get(identity) or self._known.get(identity)
        if met is not None:
            _check_kind(identity, met, kind, user)
            return False
        if identity in self._open:
            raise Corruption(f"object {identity.hex()} is part of what it needs itself")
        try:
            canonical = self._objects.canonical(identity)
            found = kind_of(canonical)
            _check_kind(identity, found, kind, user)
            needs = self._needs(identity, found, canonical)
        except MissingObject as error:
            raise error if user is None else _missing(error, user.id, user.kind) from None
        self._open.add(identity)
        path.append(_Frame(Needed(identity, found, canonical), needs))
        return True

    def _needs(
        self, identity: ObjectId, kind: str, canonical: bytes
    ) -> Iterator[tuple[ObjectId, str | None]]:
        what = _named(identity)
        if kind == Commit.KIND:
            return iter(_of_commit(decode(canonical, Commit, what)))
        if kind == Snapshot.KIND:
            snapshot = decode(canonical, Snapshot, what)
            _check_paths(snapshot, what)
            tensors = (tensor for file in snapshot.files for tensor in file_tensors(file))
            return ((tensor, Tensor.KIND) for tensor in tensors)
        if kind == Tensor.KIND:
            self._sizes[identity] = _size(decode(canonical, Tensor, what), what)[1]
            return iter(())
        possible = references(canonical, what).possible
        return ((other, None) for other in self._objects.present(possible))

    def _check_files(self, snapshot: Needed) -> None:
        what = _named(snapshot.id)
        for file in decode(snapshot.canonical, Snapshot, what).files:
            size = sum(self._tensor_bytes(tensor) for tensor in file_tensors(file))
            if size != file.size:
                raise Corruption(f"{what}: {_file(file)} has {size} bytes in its tensors")

    def _tensor_bytes(self, tensor: ObjectId) -> int:
        size = self._sizes.get(tensor)
        if size is None:
            what = _named(tensor)
            record = decode(self._objects.canonical(tensor), Tensor, what)
            size = self._sizes[tensor] = _size(record, what)[1]
        return size


def _of_commit(commit: Commit) -> list[tuple[ObjectId, str | None]]:
    optional = (
        (commit.leans_on, Commit.KIND),
        (commit.trained_from, Commit.KIND),
        (commit.profile, "profile"),
        (commit.manifest, "manifest"),
    )
    return [
        *((parent, Commit.KIND) for parent in commit.parents),
        (commit.snapshot, Snapshot.KIND),
        *((other, kind) for other, kind in optional if other is not None),
    ]


def _check_kind(identity: ObjectId, found: str, expected: str | None, user: Needed | None) -> None:
    if expected is not None and found != expected:
        needed = "" if user is None else f" ({user.kind} {user.id.hex()[:12]} names it so)"
        raise Corruption(f"object {identity.hex()} is a {found}, not a {expected}{needed}")


def _check_paths(snapshot: Snapshot, what: str) -> None:
    paths = [file.path.encode(errors="surrogatepass") for file in snapshot.files]
    if any(earlier >= later for earlier, later in itertools.pairwise(paths)):
        raise Corruption(f"{what}: a snapshot's files are not sorted, or one is there twice")
    try:
        check_paths(file.path for file in snapshot.files)
    except UnsafePath as error:
        raise Corruption(f"{what}: {error.message}", error.hint) from error


def _size(tensor: Tensor, what: str) -> tuple[DType, int]:
    if len(tensor.shape) > _MOST_DIMENSIONS:
        raise Corruption(f"{what} has {len(tensor.shape)} dimensions")
    try:
        dtype = dtype_of(tensor.dtype)
        return dtype, byte_length(dtype, tensor.shape)
    except MalformedFile as error:
        raise Corruption(f"{what}: {error.message}", error.hint) from error


def _missing(error: MissingObject, user: ObjectId, kind: str = Commit.KIND) -> MissingObject:
    return MissingObject(f"{error.message} ({kind} {user.hex()[:12]} needs it)", error.hint)


def _blamed(error: Corruption, user: ObjectId) -> Corruption:
    return type(error)(f"{error.message} (commit {user.hex()[:12]} needs it)", error.hint)


def _named(identity: ObjectId) -> str:
    return f"object {identity.hex()}"


def _file(file: FileEntry) -> str:
    return f"file {quoted(file.path)} of {file.size} bytes"


# A product of many large numbers is a large number to compute; tensors have a handful.
_MOST_DIMENSIONS = 64
