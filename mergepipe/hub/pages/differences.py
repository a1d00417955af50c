"""How two revisions differ: files by their ids, tensors by numbers where that is quick."""

import math
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.hub.files import Files, Recent
from mergepipe.ids import ObjectId
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.records import FileEntry, Snapshot
from mergepipe.repository.diff import Change, Diff, TensorDiff

MOST_BYTES = 256 << 20
"""Of tensors that differ, which a page compares; `mp diff` compares any number."""
MOST_DIFFERING = 4000
MOST_ROWS = 200
_DIFFERENCES = 32


class ChangedFile(Struct, frozen=True):
    """A file that is not the same. Sizes in bytes; None where it is not there."""

    path: str
    change: str
    size_a: int | None
    size_b: int | None


class Difference(Struct, frozen=True):
    """From one model to another. `tensors`: the first of `differing`; None: too much to compare.

    to_read  bytes of the tensors that differ
    norm     L2 norm of all changes
    """

    files: Sequence[ChangedFile]
    tensors: Sequence[TensorDiff] | None
    differing: int
    total: int
    to_read: int
    norm: float


class Differences:
    """Differences of snapshots, the last ones from memory."""

    def __init__(self, files: Files, most_bytes: int = MOST_BYTES) -> None:
        """`most_bytes`: of tensors that differ, which are compared."""
        self._files = files
        self._most_bytes = most_bytes
        self._known: Recent[tuple[str, ObjectId, ObjectId], Difference] = Recent(_DIFFERENCES)

    def of(self, repository: Repository, a: ObjectId, b: ObjectId) -> Difference:
        """From the model of commit `a` to that of commit `b`."""
        key = str(repository.directory), a, b
        return self._known.get(key, lambda: self._compare(repository, a, b))

    def changed_files(
        self, repository: Repository, a: ObjectId | None, b: ObjectId
    ) -> list[ChangedFile]:
        """Files that are not the same in two snapshots (None: nothing); reads none of them."""
        before = {} if a is None else self._files.of_snapshot(repository, a)
        return list(_changed(before, self._files.of_snapshot(repository, b)))

    def _compare(self, repository: Repository, a: ObjectId, b: ObjectId) -> Difference:
        snapshots = [
            repository.objects.snapshot(repository.model_at(each).snapshot) for each in (a, b)
        ]
        files = self.changed_files(
            repository, repository.model_at(a).snapshot, repository.model_at(b).snapshot
        )
        before, after = (_tensors(each) for each in snapshots)
        differing = [
            name
            for name in dict.fromkeys([*after, *before])
            if sorted(before.get(name, ())) != sorted(after.get(name, ()))
        ]
        if len(differing) > MOST_DIFFERING:
            return Difference(files, None, len(differing), len(after), 0, 0.0)
        to_read = sum(
            tensor_bytes(repository.objects.tensor(identity))
            for name in differing
            for side in (before, after)
            for identity in side.get(name, ())
        )
        if to_read > self._most_bytes:
            return Difference(files, None, len(differing), len(after), to_read, 0.0)
        diff = repository.diff(a.hex(), b.hex())
        return _shown(files, diff, to_read)


def _shown(files: Sequence[ChangedFile], found: Diff, to_read: int) -> Difference:
    changed = [tensor for tensor in found.tensors if tensor.change is not Change.SAME]
    norm = math.sqrt(math.fsum(tensor.l2**2 for tensor in changed if tensor.l2 is not None))
    changed.sort(key=_largest_first)
    return Difference(files, changed[:MOST_ROWS], len(changed), len(found.tensors), to_read, norm)


def _largest_first(tensor: TensorDiff) -> float:
    """What cannot be compared comes first, then the largest relative change."""
    return -math.inf if tensor.relative_l2 is None or tensor.nonfinite else -tensor.relative_l2


def _tensors(snapshot: Snapshot) -> dict[str, list[ObjectId]]:
    tensors: dict[str, list[ObjectId]] = {}
    for _, entry in snapshot.named_tensors():
        tensors.setdefault(entry.name, []).append(entry.tensor)
    return tensors


def _changed(
    before: Mapping[str, FileEntry], after: Mapping[str, FileEntry]
) -> Iterator[ChangedFile]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield ChangedFile(path, "added", None, new.size)
        elif new is None and old is not None:
            yield ChangedFile(path, "removed", old.size, None)
        elif old is not None and new is not None and old != new:
            yield ChangedFile(path, "changed", old.size, new.size)
