"""`mergepipe://REV/PATH` for whatever reads through fsspec: pandas, datasets, Ray. Read only.

    import fsspec
    with fsspec.open("mergepipe://main/config.json", repository="models") as file: ...

    fs = fsspec.filesystem("mergepipe", repository="models")
    fs.ls("main"); fs.cat_file("merged/model.safetensors", start=0, end=8)

A revision is written as everywhere else (`main~2`, `v1`, the beginning of an id); one with a slash
in its name as `team%2Ftry`. Only blocks that a range touches are decoded, each once as long as a
small cache has it. A revision is resolved when it is first named: a file system shows one and the
same model, whatever is committed meanwhile; `invalidate_cache()` looks again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from mergepipe.api import Repository
from mergepipe.errors import RevisionNotFound
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.hub.files import FileBytes, Files
from mergepipe.ids import ObjectId
from mergepipe.objects.records import FileEntry

PROTOCOL = "mergepipe"


class MergepipeFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]
    """The models of a repository as folders: one for each revision that is named.

    repository  its directory, or a URL that `Repository.open` takes; the current directory's if not
                given
    """

    protocol = PROTOCOL
    root_marker = ""

    def __init__(self, repository: str | Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.repository = Repository.open("." if repository is None else repository)
        self._files = Files(DecodedBlocks())
        self._snapshots: dict[str, ObjectId] = {}  # of revisions that were named

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix(f"{PROTOCOL}://").strip("/")

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look again at what revisions are."""
        self._snapshots.clear()

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """Branches and tags; or the files and folders of a revision, or of a folder in it."""
        revision, inside = self._split(path)
        if not revision:
            names = [*self.repository.branches(), *self.repository.tags()]
            entries = [_folder(quote(str(name), safe="")) for name in names]
        else:
            entries = self._listed(revision, inside)
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Name, size and type of a file or folder. Raises FileNotFoundError."""
        revision, inside = self._split(path)
        name = self._strip_protocol(path)
        if not revision:
            return _folder("")
        files = self._entries(revision)
        if inside in files:
            return _file(name, files[inside])
        if inside and not any(held.startswith(f"{inside}/") for held in files):
            raise FileNotFoundError(f"{revision} has no file {inside!r}")
        return _folder(name)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError("a model is read here; `mp commit` writes one")
        return ModelFile(self, self._strip_protocol(path), self._bytes_of(path), **options)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """The bytes of a file, or of a range of it (counted from the end where negative)."""
        held = self._bytes_of(path)
        first, last, _ = slice(start, end).indices(held.plan.size)
        return b"".join(held.read(*span) for span in held.spans(first, max(first, last)))

    def _bytes_of(self, path: str) -> FileBytes:
        revision, inside = self._split(path)
        files = self._entries(revision)
        if inside not in files:
            raise FileNotFoundError(f"{revision} has no file {inside!r}")
        plan = self._files.plan(self.repository, self._snapshots[revision], files[inside])
        return FileBytes(self.repository, plan, self._files.decoded)

    def _split(self, path: str) -> tuple[str, str]:
        """A path's revision, and what is left of it."""
        revision, _, inside = self._strip_protocol(path).partition("/")
        return unquote(revision), inside

    def _entries(self, revision: str) -> Mapping[str, FileEntry]:
        if revision not in self._snapshots:
            try:
                self._snapshots[revision] = self.repository.model_of(revision)[1].snapshot
            except RevisionNotFound as error:
                raise FileNotFoundError(str(error)) from error
        return self._files.of_snapshot(self.repository, self._snapshots[revision])

    def _listed(self, revision: str, inside: str) -> list[dict[str, Any]]:
        files, name = self._entries(revision), quote(revision, safe="")
        if inside in files:
            return [_file(f"{name}/{inside}", files[inside])]
        prefix = f"{inside}/" if inside else ""
        listed: dict[str, dict[str, Any]] = {}
        for path, entry in files.items():
            if not path.startswith(prefix):
                continue
            child, _, deeper = path.removeprefix(prefix).partition("/")
            full = f"{name}/{prefix}{child}"
            listed[full] = _folder(full) if deeper else _file(full, entry)
        if not listed and inside:
            raise FileNotFoundError(f"{revision} has no folder {inside!r}")
        return list(listed.values())


class ModelFile(AbstractBufferedFile):  # type: ignore[misc, unused-ignore]
    """A file that is read ahead in blocks."""

    def __init__(
        self, filesystem: MergepipeFileSystem, path: str, held: FileBytes, **options: Any
    ) -> None:
        self._held = held
        super().__init__(filesystem, path, "rb", size=held.plan.size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return b"".join(self._held.read(*span) for span in self._held.spans(start, end))


def _file(name: str, entry: FileEntry) -> dict[str, Any]:
    return {"name": name, "size": entry.size, "type": "file"}


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}
