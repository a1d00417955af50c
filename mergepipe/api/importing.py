"""Bringing in checkpoints that lie elsewhere: one as an expert, or a whole family from a list."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.api.conversions import Conversions
from mergepipe.api.hooking import ask_before_commit
from mergepipe.api.opened import OpenRepository
from mergepipe.api.results import Imported
from mergepipe.checkpoints.requests import CommitRequest, CommitResult
from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.refnames import branch_ref

if TYPE_CHECKING:
    from mergepipe.checkpoints.imports import Fingerprints, ImportEntry
    from mergepipe.formats.tree import SourceFile


class _Entry(Struct, frozen=True):
    """An entry of a list whose files were found and whose names were checked."""

    entry: "ImportEntry"
    root: Path
    ref: str
    sources: "Sequence[SourceFile]"


class Imports:
    """The part of a repository that takes in models from elsewhere."""

    def __init__(self, opened: OpenRepository, conversions: Conversions) -> None:
        self._repo = opened
        self.conversions = conversions

    def import_path(
        self, path: Path, *, base: str | None = None, progress: Progress = SILENT
    ) -> tuple[ObjectId, int]:
        """The commit that holds a checkpoint that is not on a branch, and the bytes read for it.

        It is for merging: of pickles and 8-bit floats it holds what they stand for (`Conversions`).
        It lies under refs/imports/, and is reused (0 bytes) while the files' sizes, mtimes and
        inodes stay the same. Raises what converting and committing raise.
        """
        from mergepipe.checkpoints.imports import import_ref
        from mergepipe.formats.tree import scan

        sources = scan(path)
        fingerprints = self._fingerprints()
        known = fingerprints.find(path, sources)
        if known is not None and self._repo.objects.has(known):
            return known, 0
        trained = None if base is None else self._repo.resolve(base)
        message, ref = f"Import {path.name}", import_ref(path)
        ask_before_commit(self._repo.hooks, path, sources, ref, message, base)
        request = CommitRequest(message, self._repo.signature(), ref, trained)
        with self.conversions.converted(sources) as files, self._repo.writing():
            result = self._repo.committer().commit(files, request, progress)
        fingerprints.remember(path, sources, result.commit)
        return result.commit, result.raw_bytes

    def known(self, path: Path) -> ObjectId | None:
        """The commit that holds a checkpoint, if its files are as when it was imported."""
        from mergepipe.formats.tree import scan

        try:
            fingerprint = self._fingerprints().find(path, scan(path))
        except (MergepipeError, OSError):
            return None
        return (
            fingerprint if fingerprint is not None and self._repo.objects.has(fingerprint) else None
        )

    def import_list(self, path: Path, progress: Progress = SILENT) -> Iterator[Imported]:
        """As `Repository.import_list` says."""
        from mergepipe.checkpoints.imports import read_list

        entries = self._checked(read_list(path), path.parent)
        for entry in entries:
            try:
                yield self._import_entry(entry, progress)
            except MergepipeError as error:
                raise _about(entry.entry, error) from error

    def _checked(self, entries: "Sequence[ImportEntry]", directory: Path) -> list[_Entry]:
        from mergepipe.formats.tree import scan

        branches = {entry.branch for entry in entries}
        imports = []
        for entry in entries:
            try:
                root = directory / Path(entry.path).expanduser()
                checked = _Entry(entry, root, branch_ref(entry.branch), scan(root))
                if entry.base is not None and entry.base not in branches:
                    self._repo.resolve(entry.base)
            except MergepipeError as error:
                raise _about(entry, error) from error
            imports.append(checked)
        return imports

    def _import_entry(self, found: _Entry, progress: Progress) -> Imported:
        entry, fingerprints = found.entry, self._fingerprints()
        known = fingerprints.find(found.root, found.sources)
        tip = self._repo.refs.read(found.ref)
        if known is not None and tip is not None and self._repo.objects.has(known):
            held = self._repo.objects.commit(tip)
            named = None if entry.base is None else self._repo.resolve(entry.base)
            same = held.snapshot == self._repo.objects.commit(known).snapshot
            if same and named in (None, held.trained_from):
                raw_bytes = sum(file.size for file in found.sources)
                result = CommitResult(
                    commit=tip,
                    snapshot=held.snapshot,
                    branch=entry.branch,
                    base=held.leans_on,
                    raw_bytes=raw_bytes,
                    stored_bytes=0,
                    blocks=0,
                    new_blocks=0,
                    unchanged=True,
                    trained_from=held.trained_from,
                    nonfinite=self._repo.finiteness.named(held.snapshot) or (),
                    suspects=self._repo.suspects_of(tip),
                )
                return Imported(found.root, entry.branch, result, read=False)
        message = entry.message or f"Import {found.root.name}"
        ask_before_commit(
            self._repo.hooks, found.root, found.sources, found.ref, message, entry.base
        )
        request = CommitRequest(
            message,
            self._repo.signature(),
            found.ref,
            None if entry.base is None else self._repo.resolve(entry.base),
        )
        with self._repo.writing():
            committed = self._repo.committer().commit(found.sources, request, progress)
        fingerprints.remember(found.root, found.sources, committed.commit)
        return Imported(found.root, entry.branch, committed, read=True)

    def _fingerprints(self) -> "Fingerprints":
        from mergepipe.checkpoints.imports import Fingerprints

        return Fingerprints(self._repo.storage)


def _about(entry: "ImportEntry", error: MergepipeError) -> MergepipeError:
    """The same error, saying which entry of the list it is about."""
    return type(error)(f"{quoted(entry.branch)}: {error.message}", error.hint)
