"""Whether files somewhere are those of a snapshot: each block of theirs compared by its hash."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergepipe.checkpoints.assembly import FilePlan, Part, plan_file
from mergepipe.checkpoints.worktree import FileChange
from mergepipe.errors import RevisionNotFound
from mergepipe.formats.tree import SourceFile, StableReader, open_stable, scan
from mergepipe.ids import block_id
from mergepipe.names import quoted
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.parallel import ordered_map
from mergepipe.progress import SILENT, Progress

_AHEAD = 32


def differences(
    place: Path,
    snapshot: Snapshot,
    objects: ObjectStore,
    *,
    threads: int,
    progress: Progress = SILENT,
) -> tuple[FileChange, ...]:
    """How the files of the directory `place` differ from a snapshot, sorted by path.

    A change is `new`, `modified`, `mode` (the executable bit alone) or `deleted`. A lone file is
    compared with the one of its name. Nothing of the store is read but what names its blocks, so
    how blocks are cut here does not matter. Raises UnsafePath, SourceChanged, RevisionNotFound.
    """
    wanted = {entry.path: entry for entry in snapshot.files}
    if not place.is_dir():
        wanted = {path: entry for path, entry in wanted.items() if path == place.name}
        if not wanted:
            raise RevisionNotFound(f"the revision has no file {quoted(place.name)}")
    present = {file.path: file for file in scan(place)}
    changes = [FileChange(path, "new") for path in present if path not in wanted]
    changes += [FileChange(path, "deleted") for path in wanted if path not in present]
    both = [(present[path], entry) for path, entry in wanted.items() if path in present]
    progress.start("verify", sum(entry.size for _, entry in both))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as workers:
        for file, entry in both:
            if not same_bytes(file, plan_file(entry, objects), workers, progress):
                changes.append(FileChange(entry.path, "modified"))
            elif file.executable != entry.executable:
                changes.append(FileChange(entry.path, "mode"))
    return tuple(sorted(changes, key=lambda change: change.path.encode()))


def same_bytes(
    file: SourceFile, plan: FilePlan, workers: ThreadPoolExecutor, progress: Progress = SILENT
) -> bool:
    """Whether a file is, byte for byte, the one that a plan would write. Raises SourceChanged."""
    if file.size != plan.size:
        return False
    with open_stable(file) as reader:

        def matches(part: Part) -> bool:
            return _matches(part, reader)

        head = bytearray(len(plan.head))
        reader.read_into(0, memoryview(head))
        same = head == plan.head
        for equal, part in zip(
            ordered_map(workers, matches, plan.parts, window=_AHEAD), plan.parts, strict=True
        ):
            same = same and equal
            progress.advance(part.length)
        reader.check()
    return same


def _matches(part: Part, reader: StableReader) -> bool:
    data = memoryview(bytearray(part.length))
    reader.read_into(part.offset, data)
    return block_id(data) == part.block
