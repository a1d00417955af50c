"""The models that a recipe names: revisions of a repository, and directories beside the recipe.

A directory that was never imported is looked at before it is: names, shapes and small files are in
its headers, so that a recipe that cannot be merged is refused before hours of reading.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.catalog import as_path, looks_like_path
from mergepipe.checkpoints.embeddings import EmbeddingSink, Storing, lay_out
from mergepipe.checkpoints.imports import Fingerprints
from mergepipe.checkpoints.layout import Layout, SourceTensor
from mergepipe.checkpoints.layout import lay_out as cut_files
from mergepipe.checkpoints.row_maps import RowMap
from mergepipe.checkpoints.small_files import read_stored_file
from mergepipe.checkpoints.tokenizers import StoredTokenizer, read_tokenizer
from mergepipe.dtypes import Kind
from mergepipe.errors import MergeInputError, RevisionNotFound
from mergepipe.formats.huggingface import check_shards
from mergepipe.formats.tokenizers.documents import MAX_FILE_BYTES, is_tokenizer_file
from mergepipe.formats.tokenizers.reading import read_vocabulary
from mergepipe.formats.tree import SourceFile, open_stable, read_source, scan
from mergepipe.ids import ObjectId, digest, object_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.planner.model_files import read_model_files

if TYPE_CHECKING:
    from mergepipe.api.importing import Importing

_NO_DATA = ObjectId(digest(b""))
_SAMPLE = 1 << 20


class RecipeModels:
    """What a recipe names, as far as it can be known without reading a weight.

    imported   commits of directories
    unknown    directories that would have to be imported, and the snapshots that stand for them
    commits    the commit of each stored model, by snapshot
    """

    def __init__(
        self,
        repository: "Importing",
        directory: Path,
        imported: Mapping[Path, ObjectId] | None = None,
    ) -> None:
        self.unknown: dict[Path, ObjectId] = {}
        self.commits: dict[ObjectId, ObjectId] = {}
        self._repository = repository
        self._directory = directory
        self._imported = imported or {}
        self._looked: dict[ObjectId, _LookedAt] = {}
        self._tensors: dict[ObjectId, Tensor] = {}

    def find(self, path: str, revision: str | None, /) -> ObjectId:
        """The snapshot of a revision, or else of a directory. Raises MergeInputError."""
        if not looks_like_path(path):
            commit = self._revision(path if revision is None else f"{path}@{revision}")
            if commit is not None:
                return self._stored(commit)
        location = self._location(path)
        if location is None:
            raise MergeInputError(
                f"{quoted(path)} is no revision here, and no directory",
                _not_here(path),
            )
        sources = scan(location)
        known = self._imported.get(location)
        if known is None:
            known = Fingerprints(self._repository.storage).find(location, sources)
        if known is not None and self._repository.objects.has(known):
            return self._stored(known)
        self.unknown[location] = self._look_at(location, sources)
        return self.unknown[location]

    def check(self, path: str) -> None:
        """Raise what can be said against merging a model before any weight is read."""
        snapshot = self.snapshot(self.find(path, None))
        read_model_files(snapshot, self.tensor, self.read_file, path)

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        """A stored snapshot, or one of files that were looked at."""
        looked = self._looked.get(identity)
        return self._repository.objects.snapshot(identity) if looked is None else looked.snapshot

    def tensor(self, identity: ObjectId, /) -> Tensor:
        """A stored tensor, or one in a file that was looked at."""
        looked = self._tensors.get(identity)
        return self._repository.objects.tensor(identity) if looked is None else looked

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        """The bytes of a small file; None if there is none. Raises MalformedFile if it is large."""
        entry = next((file for file in snapshot.files if file.path == path), None)
        if entry is None or not isinstance(entry.content, Blob):
            return None
        looked = self._looked.get(object_id(encode(snapshot)))
        if looked is not None:
            return read_source(looked.sources[path], MAX_FILE_BYTES)
        objects, reader = self._repository.objects, self._repository.blocks
        return read_stored_file(snapshot, path, objects, reader)

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        """The tokenizer of a model. Raises MalformedFile."""
        looked = self._looked.get(snapshot)
        if looked is None:
            found = self._repository.objects.snapshot(snapshot)
            return read_tokenizer(found, label, self._repository.objects, self._repository.blocks)
        files = {
            path: read_source(source, MAX_FILE_BYTES)
            for path, source in looked.sources.items()
            if is_tokenizer_file(path)
        }
        return StoredTokenizer(files, read_vocabulary(files, label))

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """Nothing is laid out where a recipe is only looked at: ids that stand for themselves."""
        return tuple(None if map_ is None else _NO_DATA for map_ in maps)

    def _revision(self, text: str) -> ObjectId | None:
        try:
            return self._repository.resolve(text)
        except RevisionNotFound:
            return None

    def _stored(self, commit: ObjectId) -> ObjectId:
        snapshot = self._repository.objects.commit(commit).snapshot
        self.commits.setdefault(snapshot, commit)
        return snapshot

    def _location(self, path: str) -> Path | None:
        """A directory or file: beside the recipe, or where the command runs."""
        typed = as_path(path)
        for location in (self._directory / typed, typed):
            if location.exists():
                return location
        return None

    def _look_at(self, location: Path, sources: Sequence[SourceFile]) -> ObjectId:
        """A snapshot that nobody stores, of what headers say."""
        layout = cut_files(sources, self._repository.config.store.block_size)
        names = {
            file.source.path: frozenset(tensor.name for tensor in file.header.tensors)
            for file in layout.files
            if file.header is not None
        }
        check_shards(sources, names)
        files = []
        for file in layout.files:
            source = file.source
            content: Blob | Safetensors
            if file.header is None:
                content = Blob(ObjectId(digest(f"{location}:{source.path}".encode())))
            else:
                own = layout.tensors[file.first + 1 : file.last]
                content = Safetensors(_NO_DATA, tuple(self._entry(layout, one) for one in own))
            files.append(FileEntry(source.path, source.executable, source.size, content))
        snapshot = Snapshot(tuple(files))
        identity = object_id(encode(snapshot))
        self._looked[identity] = _LookedAt(snapshot, {source.path: source for source in sources})
        return identity

    def _entry(self, layout: Layout, one: SourceTensor) -> TensorEntry:
        source = layout.files[one.file].source
        key = f"{source.location}:{one.name}".encode()
        if one.dtype.kind is not Kind.FLOAT:
            # Whether two models have the same counts or masks should be known before they are
            # stored. Long ones are not read for that: if their ends agree, they are taken as equal.
            key = b"".join(
                _read(source, begin, end)
                for begin, end in (
                    (one.start, min(one.end, one.start + _SAMPLE)),
                    (max(one.start, one.end - _SAMPLE), one.end),
                )
            )
        blocks = digest(key) if one.end > one.start else b""
        tensor = Tensor(one.dtype.name, one.shape, one.block_bytes, blocks)
        identity = object_id(encode(tensor))
        self._tensors[identity] = tensor
        assert one.name is not None
        return TensorEntry(one.name, identity)


def _read(source: SourceFile, begin: int, end: int) -> bytes:
    content = bytearray(end - begin)
    with open_stable(source) as reader:
        reader.read_into(begin, memoryview(content))
    return bytes(content)


class _LookedAt:
    """Files of a directory that was looked at."""

    def __init__(self, snapshot: Snapshot, sources: Mapping[str, SourceFile]) -> None:
        self.snapshot = snapshot
        self.sources = sources


class StoredModels(RecipeModels):
    """The same, once all models are stored: embeddings are laid out, into a sink.

    read_bytes  what that read from storage
    """

    def __init__(
        self,
        repository: "Importing",
        directory: Path,
        imported: Mapping[Path, ObjectId],
        sink: EmbeddingSink,
    ) -> None:
        super().__init__(repository, directory, imported)
        self.read_bytes = 0
        self._sink = sink

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """Stored tensors in new rows (checkpoints.embeddings.lay_out)."""
        store = self._repository.config.store
        made = lay_out(
            name,
            maps,
            tensors,
            base,
            objects=self._repository.objects,
            reader=self._repository.blocks,
            sink=self._sink,
            storing=Storing(store.codec, store.max_chain, self._repository.threads),
        )
        self.read_bytes += made.read_bytes
        return made.tensors


def _not_here(path: str) -> str:
    """What to do about a model that is nowhere. `org/name` is how the hub calls its models."""
    if re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", path, re.ASCII):
        return (
            "nothing is downloaded: `mp commit hf://"
            + path
            + " -b NAME` stores a model of the hub, "
            "and NAME stands for it in the recipe"
        )
    return "nothing is downloaded: commit the model, or put it beside the recipe"
