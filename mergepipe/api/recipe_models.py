"""The models that a recipe names: revisions of a repository, and directories beside the recipe.

A directory that was never imported is looked at before it is: names, shapes and small files are in
its headers, so that a recipe that cannot be merged is refused before hours of reading.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mergepipe.api.catalog import as_path, looks_like_path
from mergepipe.api.conversions import Conversions
from mergepipe.api.opened import OpenRepository
from mergepipe.checkpoints.adapted_tensors import Adaptation, store_adapted
from mergepipe.checkpoints.conversion import Conversion, plan_conversion
from mergepipe.checkpoints.derived import Storing
from mergepipe.checkpoints.imports import Fingerprints
from mergepipe.checkpoints.layout import Layout, SourceTensor
from mergepipe.checkpoints.layout import lay_out as cut_files
from mergepipe.checkpoints.small_files import read_stored_file
from mergepipe.dtypes import DType, Kind, byte_length, dtype_of
from mergepipe.errors import MalformedFile, MergeInputError, RevisionNotFound
from mergepipe.formats.huggingface import check_shards
from mergepipe.formats.tree import SourceFile, open_stable, read_source, scan
from mergepipe.ids import ObjectId, digest, object_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import block_bytes
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.packs.sink import Sink
from mergepipe.planner.model_files import read_model_files
from mergepipe.progress import SILENT, Progress
from mergepipe.values import count_nonfinite
from mergepipe.vocabularies import (
    MAX_FILE_BYTES,
    RowMap,
    StoredTokenizer,
    is_tokenizer_file,
    lay_out,
    read_tokenizer,
)

_NO_DATA = ObjectId(digest(b""))
_SAMPLE = 1 << 20


class RecipeModels:
    """What a recipe names, as far as it can be known without reading a weight.

    imported   commits of directories
    unknown    directories that would have to be imported, and the snapshots that stand for them
    commits    the commit of each stored model, by snapshot
    looks      no embeddings are laid out yet
    """

    looks = True

    def __init__(
        self,
        repository: OpenRepository,
        conversions: Conversions,
        directory: Path,
        imported: Mapping[Path, ObjectId] | None = None,
        *,
        progress: Progress = SILENT,
        told: Callable[[str], None] = lambda _: None,
        store: bool = True,
    ) -> None:
        """Look in a repository, then below a directory.

        told   takes what a user should know of how models are read
        store  False: nothing is written, and models that need a converted copy are refused
        """
        self._told = told
        self._progress = progress
        self._store = store
        self.unknown: dict[Path, ObjectId] = {}
        self.commits: dict[ObjectId, ObjectId] = {}
        self._repository = repository
        self._conversions = conversions
        self._directory = directory
        self._imported = imported or {}
        self._stages: Mapping[str, ObjectId] = {}
        self._looked: dict[ObjectId, _LookedAt] = {}
        self._tensors: dict[ObjectId, Tensor] = {}

    def find(self, path: str, revision: str | None, /) -> ObjectId:
        """The snapshot of a revision, or else of a directory. Raises MergeInputError."""
        if revision is None and path in self._stages:
            return self._stored(self._stages[path])
        if not looks_like_path(path):
            text = path if revision is None else f"{path}@{revision}"
            commit = self._revision(text)
            if commit is not None:
                readable = self._conversions.readable(
                    commit,
                    label=text,
                    told=self._told,
                    store=self._store,
                    progress=self._progress,
                )
                return self._stored(readable)
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
        self.unknown[location] = self._look_at(location, sources, path)
        return self.unknown[location]

    def check(self, path: str) -> ObjectId:
        """The snapshot of a model; what can be said against merging it by its headers is raised."""
        model = self.find(path, None)
        read_model_files(self.snapshot(model), self.tensor, self.read_file, path)
        return model

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
        if looked is not None and path in looked.contents:
            return looked.contents[path]
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
        return StoredTokenizer.of(files, label)

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

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        """Nothing is made where a recipe is only looked at: an id that stands for itself."""
        return ObjectId(digest(repr(adaptation).encode()))

    def nonfinite(self, tensor: ObjectId, /) -> int:
        """Nothing is known where a recipe is only looked at."""
        return 0

    def _revision(self, text: str) -> ObjectId | None:
        try:
            return self._repository.resolve(text)
        except RevisionNotFound:
            return None

    def _stored(self, commit: ObjectId) -> ObjectId:
        snapshot = self._repository.model_at(commit).snapshot
        self.commits.setdefault(snapshot, commit)
        return snapshot

    def _location(self, path: str) -> Path | None:
        """A directory or file: beside the recipe, or where the command runs."""
        typed = as_path(path)
        for location in (self._directory / typed, typed):
            if location.exists():
                return location
        return None

    def _look_at(self, location: Path, sources: Sequence[SourceFile], label: str) -> ObjectId:
        """A snapshot that nobody stores, of what headers say once the model is imported."""
        try:
            conversion = plan_conversion(sources)
        except MalformedFile as error:
            raise MalformedFile(f"{quoted(label)}: {error.message}", error.hint) from error
        kept = sources if conversion is None else conversion.kept(sources)
        layout = cut_files(kept, self._repository.config.store.block_size)
        if conversion is None:
            check_shards(sources, {
                file.source.path: frozenset(tensor.name for tensor in file.header.tensors)
                for file in layout.files
                if file.header is not None
            })  # fmt: skip
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
        if conversion is not None:
            for note in conversion.notes:
                self._told(f"{label}: {note}")
            files += self._converted(conversion, location)
        snapshot = Snapshot(tuple(sorted(files, key=lambda file: file.path.encode())))
        identity = object_id(encode(snapshot))
        self._looked[identity] = _LookedAt(
            snapshot,
            {source.path: source for source in kept},
            {} if conversion is None else conversion.contents,
        )
        return identity

    def _converted(self, conversion: Conversion, location: Path) -> list[FileEntry]:
        """The files of a model that will be converted."""
        files = [
            FileEntry(path, False, len(content), Blob(ObjectId(digest(content))))
            for path, content in conversion.contents.items()
        ]
        limit = self._repository.config.store.block_size
        for path, tensors in conversion.files.items():
            entries = []
            for tensor in tensors:
                stored = tensor.stored
                size = byte_length(stored.dtype, stored.shape)
                key = f"{location}:{path}:{tensor.name}".encode()
                if tensor.dtype.kind is not Kind.FLOAT and stored.strides is None:
                    key = _ends(stored.source, stored.start, stored.start + size)
                entries.append(self._looked_at(tensor.name, tensor.dtype, stored.shape, limit, key))
            files.append(FileEntry(path, False, 0, Safetensors(_NO_DATA, tuple(entries))))
        return files

    def _entry(self, layout: Layout, one: SourceTensor) -> TensorEntry:
        source = layout.files[one.file].source
        key = f"{source.location}:{one.name}".encode()
        if one.dtype.kind is not Kind.FLOAT:
            key = _ends(source, one.start, one.end)
        assert one.name is not None
        limit = self._repository.config.store.block_size
        return self._looked_at(one.name, one.dtype, one.shape, limit, key)

    def _looked_at(
        self, name: str, dtype: DType, shape: tuple[int, ...], limit: int, key: bytes
    ) -> TensorEntry:
        """A tensor that nobody stores; those of one `key` are taken as the same."""
        blocks = digest(key) if byte_length(dtype, shape) else b""
        tensor = Tensor(dtype.name, shape, block_bytes(dtype, shape, limit), blocks)
        identity = object_id(encode(tensor))
        self._tensors[identity] = tensor
        return TensorEntry(name, identity)


def _ends(source: SourceFile, start: int, end: int) -> bytes:
    """The first and the last bytes of a tensor.

    Whether two models have the same counts or masks should be known before they are stored. Long
    ones are not read for that: if their ends agree, they are taken as equal.
    """
    return _read(source, start, min(end, start + _SAMPLE)) + _read(
        source, max(start, end - _SAMPLE), end
    )


def _read(source: SourceFile, begin: int, end: int) -> bytes:
    content = bytearray(end - begin)
    with open_stable(source) as reader:
        reader.read_into(begin, memoryview(content))
    return bytes(content)


class _LookedAt:
    """Files of a directory that was looked at."""

    def __init__(
        self,
        snapshot: Snapshot,
        sources: Mapping[str, SourceFile],
        contents: Mapping[str, bytes],
    ) -> None:
        self.snapshot = snapshot
        self.sources = sources
        self.contents = contents


class StoredModels(RecipeModels):
    """The same, once all models are stored: embeddings are laid out, into a sink.

    read_bytes  what that read from storage
    """

    looks = False

    def __init__(
        self,
        repository: OpenRepository,
        conversions: Conversions,
        directory: Path,
        imported: Mapping[Path, ObjectId],
        sink: Sink,
        stages: Mapping[str, ObjectId],
    ) -> None:
        """`stages`: commits of the recipe's own stages, by name; they beat all other models."""
        super().__init__(repository, conversions, directory, imported)
        self._stages = stages
        self.read_bytes = 0
        self._sink = sink
        self._made_nonfinite: dict[ObjectId, int] = {}

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """Stored tensors in new rows (vocabularies.embeddings.lay_out)."""
        store = self._repository.config.store
        laid_out = lay_out(
            name,
            maps,
            tensors,
            base,
            objects=self._repository.objects,
            reader=self._repository.blocks,
            sink=self._sink,
            storing=Storing(store.codec, store.max_chain, self._repository.threads),
        )
        self.read_bytes += laid_out.read_bytes
        return laid_out.tensors

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        """A stored tensor as an adapter has it (checkpoints.adapted_tensors.store_adapted)."""
        store = self._repository.config.store
        adapted, read_bytes, nonfinite = store_adapted(
            adaptation,
            objects=self._repository.objects,
            reader=self._repository.blocks,
            sink=self._sink,
            storing=Storing(store.codec, store.max_chain, self._repository.threads),
            block_limit=store.block_size,
        )
        self.read_bytes += read_bytes
        self._made_nonfinite[adapted] = nonfinite
        return adapted

    def nonfinite(self, tensor: ObjectId, /) -> int:
        """How many values of a tensor are infinite or NaN: as counted when made, or by reading."""
        known = self._made_nonfinite.get(tensor)
        if known is not None:
            return known
        stored = self._repository.objects.tensor(tensor)
        dtype, blocks = dtype_of(stored.dtype), tuple(stored.block_ids())
        return sum(count_nonfinite(dtype, raw) for raw in self._repository.blocks.read(blocks))


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
