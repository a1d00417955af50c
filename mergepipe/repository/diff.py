"""What differs between two snapshots: which tensors and files, and by how much."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import ordered_map
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.element_sums import (
    Differences,
    Part,
    comparable,
    compare_part,
    count_blocks_changed,
    parts,
)
from mergepipe.reprs import brief, html_table

_SHOWN = 40
"""Tensors that a table in a notebook has."""


class Change(StrEnum):
    """What became of a tensor or file.

    `reshaped`: a tensor of that name has another shape; `renamed`: a file has another path only.
    """

    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    RESHAPED = "reshaped"
    RENAMED = "renamed"


@brief
class TensorDiff(Struct, frozen=True):
    """One tensor, from `a` to `b`. `path` is its file in `b` (in `a` if it was removed).

    blocks, blocks_changed  of `b` (of `a` if removed), and how many of them `a` has not at the
        same place
    changed_share  share of the elements whose bits differ (whose values, between two dtypes)
    l2             norm of b - a;   relative_l2  that over the norm of a
    cosine         of the angle between a and b;   max_abs  largest magnitude in b - a
    nonfinite      elements that are infinite or NaN on either side: they count in
        `changed_share`, and are left out of the numbers above

    Numbers are None where there is nothing to compare (added, removed, reshaped), where `a` (for
    relative_l2; either, for cosine) is all zeros and they differ, and beyond float64's range.
    """

    name: str
    path: str
    change: Change
    dtype_a: str | None
    dtype_b: str | None
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    blocks: int
    blocks_changed: int
    changed_share: float | None
    l2: float | None
    relative_l2: float | None
    cosine: float | None
    max_abs: float | None
    nonfinite: int


@brief
class FileDiff(Struct, frozen=True):
    """One file, from `a` to `b`; sizes in bytes, None where it is not there.

    `changed` also covers the executable bit, and a tensor file's header alone. `old_path` is that
    in `a` of a file that was renamed.
    """

    path: str
    change: Change
    size_a: int | None
    size_b: int | None
    old_path: str | None = None


@brief
class Diff(Struct, frozen=True):
    """Tensors in the order of `b`, then those removed; files sorted by path."""

    tensors: tuple[TensorDiff, ...]
    files: tuple[FileDiff, ...]

    def _repr_html_(self) -> str:
        """The tensors that moved most, for notebooks."""
        changed = [each for each in self.tensors if each.change is not Change.SAME]
        changed.sort(key=lambda each: -(each.relative_l2 or 0.0))
        rows = [
            (
                each.name,
                each.change.value,
                f"{each.blocks_changed}/{each.blocks}",
                *(
                    "" if number is None else f"{number:.4g}"
                    for number in (each.l2, each.relative_l2, each.cosine, each.max_abs)
                ),
            )
            for each in changed[:_SHOWN]
        ]
        caption = f"{len(self.tensors):,} tensors, {len(changed):,} changed"
        head = ("tensor", "change", "blocks", "L2", "relative", "cosine", "largest")
        return html_table(caption, head, rows, len(changed[_SHOWN:]))

    @property
    def same(self) -> bool:
        """Whether nothing differs at all."""
        changes = [tensor.change for tensor in self.tensors] + [file.change for file in self.files]
        return all(change is Change.SAME for change in changes)


class _Named(Struct, frozen=True):
    """A tensor of a snapshot, by the file and name it has there."""

    path: str
    name: str
    tensor: ObjectId


def diff_snapshots(
    a: Snapshot,
    b: Snapshot,
    objects: ObjectStore,
    reader: BlockReader,
    *,
    threads: int = 1,
    progress: Progress = SILENT,
) -> Diff:
    """Compare two snapshots, reading only what differs, and that once.

    Tensors are matched by file and name, then by name alone, so that other shards are no change.
    Numbers are float64, sums of blocks in a fixed order: the same on any machine and for any
    `threads`. Memory: a few blocks for each thread. Raises MissingObject, Corruption.
    """
    pairs = list(_match(list(_tensors(a)), list(_tensors(b))))

    def load(named: _Named | None) -> Tensor | None:
        return None if named is None else objects.tensor(named.tensor)

    loaded = [(load(old), load(new)) for old, new in pairs]
    differing: list[tuple[int, Tensor, Tensor]] = []
    for number, ((old, new), (left, right)) in enumerate(zip(pairs, loaded, strict=True)):
        if old is None or new is None or left is None or right is None:
            continue
        if old.tensor != new.tensor and comparable(left, right):
            differing.append((number, left, right))
    progress.start("diff", sum(tensor_bytes(left) for _, left, _ in differing))
    measured = _measure(differing, reader, threads, progress)
    tensors = [
        _tensor_diff(old, new, left, right, measured.get(number))
        for number, ((old, new), (left, right)) in enumerate(zip(pairs, loaded, strict=True))
    ]
    return Diff(tuple(tensors), tuple(_files(a, b, objects, reader)))


def _tensors(snapshot: Snapshot) -> Iterator[_Named]:
    for file, entry in snapshot.named_tensors():
        yield _Named(file.path, entry.name, entry.tensor)


def _match(
    before: Sequence[_Named], after: Sequence[_Named]
) -> Iterator[tuple[_Named | None, _Named | None]]:
    """Pairs in the order of `after`; then what is left of `before`."""
    exact = {(tensor.path, tensor.name): tensor for tensor in before}
    taken = {(tensor.path, tensor.name) for tensor in after} & exact.keys()
    moved: dict[str, list[_Named]] = {}
    for tensor in before:
        if (tensor.path, tensor.name) not in taken:
            moved.setdefault(tensor.name, []).append(tensor)
    for tensor in after:
        if (tensor.path, tensor.name) in taken:
            yield exact[tensor.path, tensor.name], tensor
        else:
            candidates = moved.get(tensor.name)
            yield candidates.pop(0) if candidates else None, tensor
    left_over = {id(tensor) for candidates in moved.values() for tensor in candidates}
    for tensor in before:
        if id(tensor) in left_over:
            yield tensor, None


def _measure(
    differing: Sequence[tuple[int, Tensor, Tensor]],
    reader: BlockReader,
    threads: int,
    progress: Progress,
) -> dict[int, Differences]:
    """The sums of every pair that differs, on all threads, added up in order."""

    def tasks() -> Iterator[tuple[int, Part]]:
        for number, left, right in differing:
            for part in parts(left, right):
                yield number, part

    def work(task: tuple[int, Part]) -> tuple[int, Differences]:
        return task[0], compare_part(task[1], reader)

    sums = {number: Differences() for number, _, _ in differing}
    with ThreadPoolExecutor(threads, thread_name_prefix="diff") as workers:
        for number, differences in ordered_map(workers, work, tasks(), window=2 * threads + 1):
            sums[number].add(differences)
            progress.advance(differences.raw_bytes)
    return sums


def _tensor_diff(
    one: _Named | None,
    other: _Named | None,
    left: Tensor | None,
    right: Tensor | None,
    differences: Differences | None,
) -> TensorDiff:
    named = other or one
    shown = right or left
    assert named is not None
    assert shown is not None
    if left is None or right is None:
        change = Change.ADDED if left is None else Change.REMOVED
    elif one and other and one.tensor == other.tensor:
        change, differences = Change.SAME, Differences()
    elif differences is None:
        change = Change.RESHAPED
    else:
        equal = left.dtype == right.dtype and not differences.bytes_differ
        change = Change.SAME if equal else Change.CHANGED
    blocks = len(shown.block_ids())
    if change is Change.SAME:
        changed = 0
    else:
        changed = blocks if left is None or right is None else count_blocks_changed(left, right)
    share = l2 = relative = cosine = largest = None
    if differences is not None:
        share, l2, largest = differences.changed_share, differences.l2, differences.max_abs
        relative, cosine = differences.relative_l2, differences.cosine
    return TensorDiff(
        name=named.name,
        path=named.path,
        change=change,
        dtype_a=None if left is None else left.dtype,
        dtype_b=None if right is None else right.dtype,
        shape_a=None if left is None else left.shape,
        shape_b=None if right is None else right.shape,
        blocks=blocks,
        blocks_changed=changed,
        changed_share=share,
        l2=l2,
        relative_l2=relative,
        cosine=cosine,
        max_abs=largest,
        nonfinite=0 if differences is None else differences.nonfinite,
    )


def _files(
    a: Snapshot, b: Snapshot, objects: ObjectStore, reader: BlockReader
) -> Iterator[FileDiff]:
    before = {file.path: file for file in a.files}
    after = {file.path: file for file in b.files}
    renamed = renamed_files(before, after)
    gone = set(renamed.values())
    for path in sorted({*before, *after} - gone, key=str.encode):
        old, new = before.get(path), after.get(path)
        if path in renamed:
            size = after[path].size
            yield FileDiff(path, Change.RENAMED, size, size, renamed[path])
            continue
        if old is None or new is None:
            change = Change.ADDED if old is None else Change.REMOVED
        elif old.executable == new.executable and _same_content(old, new, objects, reader):
            change = Change.SAME
        else:
            change = Change.CHANGED
        size_a, size_b = (None if file is None else file.size for file in (old, new))
        yield FileDiff(path, change, size_a, size_b)


def renamed_files(
    before: Mapping[str, FileEntry], after: Mapping[str, FileEntry]
) -> dict[str, str]:
    """New path to old, of files that are gone and are there again as they were. Not empty ones."""
    gone: dict[Blob | Safetensors, list[str]] = {}
    for path in sorted(before.keys() - after.keys(), key=str.encode, reverse=True):
        if before[path].size:
            gone.setdefault(before[path].content, []).append(path)
    renamed = {}
    for path in sorted(after.keys() - before.keys(), key=str.encode):
        candidates = gone.get(after[path].content, [])
        if candidates and before[candidates[-1]].executable == after[path].executable:
            renamed[path] = candidates.pop()
    return renamed


def _same_content(
    one: FileEntry, other: FileEntry, objects: ObjectStore, reader: BlockReader
) -> bool:
    """Whether two files hold the same bytes; read only where they were cut differently."""
    if one.content == other.content:
        return True
    if one.size != other.size:
        return False
    pairs = list(zip(one.tensor_ids(), other.tensor_ids(), strict=False))
    if len(list(one.tensor_ids())) != len(list(other.tensor_ids())):
        return False
    for left_id, right_id in pairs:
        if left_id == right_id:
            continue
        left, right = objects.tensor(left_id), objects.tensor(right_id)
        if not comparable(left, right) or left.dtype != right.dtype:
            return False
        if left.block_bytes == right.block_bytes:
            return False
        if any(compare_part(part, reader).bytes_differ for part in parts(left, right)):
            return False
    return True
