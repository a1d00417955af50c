"""Models that merges cannot read as they stand, brought in as copies that they can.

What is committed is never changed: the copy is a commit of its own under refs/imports/, whose
parent is the one it is of.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.opened import OpenRepository
from mergepipe.bytestore.elsewhere import located
from mergepipe.checkpoints.requests import CommitRequest
from mergepipe.errors import NoSpace, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Safetensors, Snapshot
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout
from mergepipe.repository.refnames import IMPORTS
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.formats.tree import SourceFile

_PREFIX = "convert-"
_CACHED = b"r/"


class Conversions:
    """The part of a repository that makes models readable for merges."""

    def __init__(self, opened: OpenRepository) -> None:
        self._repo = opened

    def readable(
        self,
        commit: ObjectId,
        *,
        label: str = "",
        told: Callable[[str], None] | None = None,
        store: bool = True,
        progress: Progress = SILENT,
    ) -> ObjectId:
        """The commit that merges read in place of another: mostly the same one.

        Of a model whose weights are pickles or 8-bit floats with scales, a converted copy, which is
        made once. Raises UsageError where one would have to be made and nothing may be written, and
        what conversion raises.
        """
        from mergepipe.checkpoints.conversion import plan_conversion

        snapshot = self._repo.objects.commit(commit).snapshot
        if not self._may_need_conversion(self._repo.objects.snapshot(snapshot)):
            return commit
        key = _CACHED + snapshot
        with self._repo.storage.view() as view:
            value = view.cached(key)
        if value is not None and self._repo.objects.has(ObjectId(value)):
            return ObjectId(value)
        if not store:
            raise UsageError(
                f"{quoted(label)} has to be converted first, and a dry run writes nothing",
                "leave --dry-run out: a plan is stored, and merges nothing yet",
            )
        with self._folder() as folder:
            sources = self._exported(commit, folder / "model", progress)
            conversion = plan_conversion(sources)
            if conversion is None:
                identity = commit
            else:
                for note in conversion.notes if told is not None else ():
                    assert told is not None
                    told(f"{label}: {note}")
                with self.converted(sources) as files:
                    identity = self._committed_copy(commit, files, progress)
        self._repo.storage.index.cache([(key, identity)])
        return identity

    @contextmanager
    def converted(self, sources: "Sequence[SourceFile]") -> "Iterator[Sequence[SourceFile]]":
        """Files as merges read them, for as long as the context lasts."""
        from mergepipe.checkpoints.conversion import plan_conversion, write_conversion

        conversion = plan_conversion(sources)
        if conversion is None:
            yield sources
            return
        with self._folder() as folder:
            status = os.statvfs(folder)
            free = status.f_bavail * status.f_frsize
            if conversion.written_bytes > free:
                raise NoSpace(
                    f"a converted copy takes {format_size(conversion.written_bytes)} while it is "
                    f"brought in, and {quoted(str(folder.parent))} has {format_size(free)} free",
                    "free some space, or convert the model elsewhere and merge that",
                )
            yield write_conversion(conversion, sources, folder)

    def _committed_copy(
        self, commit: ObjectId, files: "Sequence[SourceFile]", progress: Progress
    ) -> ObjectId:
        of = self._repo.objects.commit(commit)
        ref = f"{IMPORTS}{commit.hex()[:12]}-readable"
        request = CommitRequest(
            f"What merges read of {commit.hex()[:12]}", self._repo.signature(), ref, of.trained_from
        )
        with self._repo.writing():
            return self._repo.committer().commit(files, request, progress).commit

    def _may_need_conversion(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot holds 8-bit floats, or pickles where no safetensors file is."""
        from mergepipe.checkpoints.conversion import may_be_weights
        from mergepipe.formats.weight_files import directory_of

        directories = set()
        for file in snapshot.files:
            if isinstance(file.content, Safetensors):
                directories.add(directory_of(file.path))
                for entry in file.content.tensors:
                    if self._repo.objects.tensor(entry.tensor).dtype.startswith("F8_"):
                        return True
        return any(
            may_be_weights(file.path) and directory_of(file.path) not in directories
            for file in snapshot.files
        )

    def _exported(
        self, commit: ObjectId, folder: Path, progress: Progress
    ) -> "Sequence[SourceFile]":
        """The files of a commit, written below a folder of ours."""
        from mergepipe.checkpoints.assembly import plan_file
        from mergepipe.checkpoints.export import export
        from mergepipe.formats.tree import scan_file

        snapshot = self._repo.objects.snapshot(self._repo.objects.commit(commit).snapshot)
        plans = [plan_file(entry, self._repo.objects) for entry in snapshot.files]
        export(plans, folder, self._repo.blocks, threads=self._repo.threads, progress=progress)
        return [scan_file(folder / entry.path, entry.path) for entry in snapshot.files]

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder on the repository's disk; those that killed processes left are taken away."""
        above = located(self._repo.directory, layout.TMP)
        for old in above.glob(f"{_PREFIX}*"):
            with suppress(OSError), _locked(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
        try:
            with _locked(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. Raises OSError where another process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
