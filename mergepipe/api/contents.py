"""Single files of a model at a revision, without checking the model out."""

import hashlib
import posixpath
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import MissingObject, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Commit, FileEntry
from mergepipe.progress import SILENT, Progress

if TYPE_CHECKING:
    from mergepipe.checkpoints.worktree import FileChange


class Contents:
    """The side of a repository that looks into a commit."""

    def __init__(self, opened: OpenRepository) -> None:
        self._repo = opened

    def files(self, revision: str = "HEAD", under: str = "") -> tuple[FileEntry, ...]:
        """The files of a revision, sorted by path; with `under`, one file or those of a folder.

        Raises RevisionNotFound, also where nothing is called `under`.
        """
        entries = self._repo.objects.snapshot(self._repo.model_of(revision)[1].snapshot).files
        if not _plain(under):
            return entries
        listed = tuple(entry for entry in entries if _is_under(entry.path, under))
        if not listed:
            raise RevisionNotFound(
                f"{revision} has no file {quoted(under)}", f"mp ls {revision} lists its files"
            )
        return listed

    def changes_to(self, paths: Sequence[str], *, follow: bool = False) -> Callable[[Commit], bool]:
        """A function that tells whether a commit changed one of these files or folders.

        As in git: a merge did where it differs from each of its parents. `follow`: asked newest
        first, it goes on with the names that files had before they were renamed.
        """
        wanted = list(paths)

        def held(snapshot: ObjectId) -> tuple[FileEntry, ...]:
            return tuple(
                entry
                for entry in self._files_of(snapshot)
                if any(_is_under(entry.path, path) for path in wanted)
            )

        def changed(commit: Commit) -> bool:
            content = held(commit.snapshot)
            parents = [self._repo.objects.commit(parent).snapshot for parent in commit.parents]
            if not parents:
                return bool(content)
            did = all(held(parent) != content for parent in parents)
            if did and follow:
                wanted.extend(self._former_names(content, parents[0], commit.snapshot))
            return did

        return changed

    def _files_of(self, snapshot: ObjectId) -> tuple[FileEntry, ...]:
        try:
            return self._repo.objects.snapshot(snapshot).files
        except MissingObject:  # a commit whose model was let go
            return ()

    def _former_names(
        self, entries: Sequence[FileEntry], before: ObjectId, after: ObjectId
    ) -> list[str]:
        from mergepipe.repository.diff import renamed_files

        old, new = (
            {file.path: file for file in self._files_of(snapshot)} for snapshot in (before, after)
        )
        renamed = renamed_files(old, new)
        return [renamed[entry.path] for entry in entries if entry.path in renamed]

    def read_file(self, revision: str, path: str) -> Iterator[memoryview]:
        """The bytes of one file of a revision, in order, a few MiB at a time, verified.

        Raises RevisionNotFound before the first, Corruption, MissingObject.
        """
        entry = self.file(revision, path)
        if entry is None:
            raise RevisionNotFound(
                f"{quoted(path)} is a folder in {revision}",
                f"`mp ls {f'{revision} {path}'.rstrip()}` lists it",
            )
        return self.read_entry(entry)

    def file(self, revision: str, path: str) -> FileEntry | None:
        """One file of a revision; None for a folder. Raises RevisionNotFound."""
        listed = self.files(revision, path)
        return listed[0] if listed and listed[0].path == _plain(path) else None

    def read_entry(self, entry: FileEntry) -> Iterator[memoryview]:
        """The bytes of a file of a snapshot, as `read_file` gives them."""
        from mergepipe.checkpoints.assembly import plan_file
        from mergepipe.checkpoints.export import read_out

        return read_out(plan_file(entry, self._repo.objects), self._repo.blocks)

    def file_digest(self, entry: FileEntry) -> str:
        """The SHA-256 of a file of a snapshot (64 hex digits), which other places show for it."""
        digest = hashlib.sha256()
        for piece in self.read_entry(entry):
            digest.update(piece)
        return digest.hexdigest()

    def verify(
        self, path: str | Path, revision: str = "HEAD", *, progress: Progress = SILENT
    ) -> "tuple[FileChange, ...]":
        """How the files of a directory (or one file) differ from a revision's; empty: not at all.

        Raises RevisionNotFound, UsageError, UnsafePath, SourceChanged.
        """
        from mergepipe.checkpoints.matching import differences

        place = Path(path)
        if not place.exists():
            raise UsageError(f"there is nothing at {quoted(str(place))}")
        snapshot = self._repo.objects.snapshot(self._repo.model_of(revision)[1].snapshot)
        return differences(
            place, snapshot, self._repo.objects, threads=self._repo.threads, progress=progress
        )


def _is_under(path: str, wanted: str) -> bool:
    """Whether a file is the one named, or in the folder of that name."""
    wanted = _plain(wanted)
    return path == wanted or path.startswith(wanted + "/")


def _plain(path: str) -> str:
    """A path as snapshots have it, of one with `./` or a slash at an end; "" is all of a model."""
    plain = posixpath.normpath(f"./{path}").strip("/")
    return "" if plain == "." else plain
