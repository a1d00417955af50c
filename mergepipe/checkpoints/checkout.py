"""Making files say what a snapshot says: into another directory, or in the worktree."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergepipe.bytestore.untrusted import status_of
from mergepipe.checkpoints.assembly import FilePlan, plan_file
from mergepipe.checkpoints.export import export
from mergepipe.checkpoints.matching import same_bytes
from mergepipe.checkpoints.worktree import Worktree, compare
from mergepipe.errors import SourceChanged, WorktreeDirty
from mergepipe.formats.tree import scan_file
from mergepipe.formats.writing import ExportDirectory
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.paths import check_paths
from mergepipe.objects.records import FileEntry, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.progress import Progress

_SHOWN = 5
_MOST_LOOKS = 16


def export_files(
    plans: Sequence[FilePlan],
    destination: Path,
    reader: BlockReader,
    *,
    force: bool,
    threads: int,
    progress: Progress,
) -> None:
    """Write files under a directory.

    Without `force` those that are there, byte for byte, stay, and no other one is replaced: raises
    WorktreeDirty.
    """
    paths = [plan.path for plan in plans]
    check_paths(paths)
    if not force:
        plans, there = _missing(plans, destination, threads)
        if there:
            raise WorktreeDirty(
                f"{destination} holds {_some(there)} already",
                "add --force to replace what is there",
            )
    with ExportDirectory(destination) as directory:
        directory.sweep(paths)
    export(plans, destination, reader, threads=threads, progress=progress)


def _missing(
    plans: Sequence[FilePlan], destination: Path, threads: int
) -> tuple[list[FilePlan], list[str]]:
    """The files that have to be written, and the paths of those that hold something else."""
    missing: list[FilePlan] = []
    others: list[str] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="compare") as workers:
        for plan in plans:
            location = destination / plan.path
            if status_of(location) is None:
                missing.append(plan)
            elif not location.is_file() or location.is_symlink():
                others.append(plan.path)
            else:
                same, executable = _compared(location, plan, workers)
                if not same:
                    others.append(plan.path)
                elif executable != plan.executable:
                    missing.append(plan)
    return missing, others


def _compared(location: Path, plan: FilePlan, workers: ThreadPoolExecutor) -> tuple[bool, bool]:
    """Whether a file is the one of a plan, and whether it is executable.

    Other ranks of a job may put the same file in its place meanwhile: then that one is looked at.
    """
    looks = 0
    while True:
        file = scan_file(location, plan.path)
        try:
            return same_bytes(file, plan, workers), file.executable
        except SourceChanged:
            looks += 1
            if looks == _MOST_LOOKS:
                raise


class WorktreeCheckout:
    """Brings a worktree from what it holds to a snapshot, touching only what differs."""

    def __init__(
        self,
        worktree: Worktree,
        objects: ObjectStore,
        reader: BlockReader,
        *,
        block_size: int,
        threads: int,
    ) -> None:
        self._worktree = worktree
        self._objects = objects
        self._reader = reader
        self._block_size = block_size
        self._threads = threads

    def run(self, target: ObjectId, *, force: bool, progress: Progress) -> None:
        """Write, replace and remove files until the worktree holds the snapshot `target`.

        Raises WorktreeDirty, before anything is touched, if a file that has to change holds what
        no snapshot recorded, unless `force`.
        """
        recorded = self._worktree.recorded(self._objects)
        wanted = {entry.path: entry for entry in self._objects.snapshot(target).files}
        check_paths(list(wanted))
        files = self._worktree.scan()
        present = self._worktree.entries(
            files,
            recorded,
            block_size=self._block_size,
            threads=self._threads,
        )
        write = [entry for path, entry in wanted.items() if present.get(path) != entry]
        old = {} if recorded is None else {entry.path: entry for entry in recorded.files}
        remove = [path for path in old if path in present and path not in wanted]
        if not force:
            self._refuse_loss(present, recorded, {*remove, *(entry.path for entry in write)})
        self._worktree.forget([*remove, *(entry.path for entry in write)])
        with ExportDirectory(self._worktree.root) as directory:
            for path in remove:
                directory.remove(path)
            directory.sweep(wanted)
        export(
            [plan_file(entry, self._objects) for entry in write],
            self._worktree.root,
            self._reader,
            threads=self._threads,
            progress=progress,
        )
        held = [file for file in self._worktree.scan() if file.path in wanted]
        self._worktree.record(target, held)

    def _refuse_loss(
        self, present: dict[str, FileEntry], recorded: Snapshot | None, touched: set[str]
    ) -> None:
        lost = [
            change.path
            for change in compare(present, recorded)
            if change.path in touched and change.change != "deleted"
        ]
        if lost:
            raise WorktreeDirty(
                f"{_some(lost)} would be overwritten, and no commit holds what is in there",
                "commit first, or add --force to throw the changes away",
            )


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(quoted(path) for path in paths[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"
