"""Model directories that nobody stored yet, known by what their headers say.

Names, shapes, dtypes and small files are in headers: enough to refuse a recipe that cannot be
merged before hours of reading. The snapshots and tensors given here are in the terms of those that
are stored, so that one expansion serves both, but they never reach a sink: block ids in them stand
for data that was not read.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from mergepipe.checkpoints.conversion import Conversion, plan_conversion
from mergepipe.checkpoints.layout import Layout, SourceTensor, lay_out
from mergepipe.dtypes import DType, Kind, byte_length
from mergepipe.errors import MalformedFile
from mergepipe.formats.huggingface import check_shards
from mergepipe.formats.tokenizer_names import is_tokenizer_file
from mergepipe.formats.tree import SourceFile, open_stable, read_source
from mergepipe.ids import ObjectId, digest, object_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import block_bytes
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.vocabularies import MAX_FILE_BYTES, StoredTokenizer

_NO_DATA = ObjectId(digest(b""))
_SAMPLE_BYTES = 1 << 20


class UnstoredModels:
    """Directories whose headers were read.

    block_size  of the repository that would store them
    told        takes what a user should know of how models are read
    """

    def __init__(self, block_size: int, told: Callable[[str], None]) -> None:
        self._block_size = block_size
        self._told = told
        self._directories: dict[ObjectId, _Directory] = {}
        self._tensors: dict[ObjectId, Tensor] = {}

    def add(self, location: Path, sources: Sequence[SourceFile], label: str) -> ObjectId:
        """Read the headers of a directory; the id by which its snapshot is found here.

        Raises MalformedFile naming `label` for one that could not be imported.
        """
        try:
            conversion = plan_conversion(sources)
        except MalformedFile as error:
            raise MalformedFile(f"{quoted(label)}: {error.message}", error.hint) from error
        kept = sources if conversion is None else conversion.kept(sources)
        layout = lay_out(kept, self._block_size)
        if conversion is None:
            check_shards(sources, {
                file.source.path: frozenset(tensor.name for tensor in file.header.tensors)
                for file in layout.files
                if file.header is not None
            })  # fmt: skip
        files = self._files(layout, location)
        if conversion is not None:
            for note in conversion.notes:
                self._told(f"{label}: {note}")
            files += self._converted(conversion, location)
        snapshot = Snapshot(tuple(sorted(files, key=lambda file: file.path.encode())))
        identity = object_id(encode(snapshot))
        self._directories[identity] = _Directory(
            snapshot,
            {source.path: source for source in kept},
            {} if conversion is None else conversion.contents,
        )
        return identity

    def snapshot(self, identity: ObjectId) -> Snapshot | None:
        """The snapshot of a directory that was added."""
        directory = self._directories.get(identity)
        return None if directory is None else directory.snapshot

    def tensor(self, identity: ObjectId) -> Tensor | None:
        """A tensor of a directory that was added."""
        return self._tensors.get(identity)

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot is that of a directory that was added."""
        return object_id(encode(snapshot)) in self._directories

    def read_file(self, snapshot: Snapshot, path: str) -> bytes:
        """A small file of a directory that was added. Raises MalformedFile if it is large."""
        directory = self._directories[object_id(encode(snapshot))]
        content = directory.contents.get(path)
        return read_source(directory.sources[path], MAX_FILE_BYTES) if content is None else content

    def tokenizer(self, identity: ObjectId, label: str) -> StoredTokenizer | None:
        """The tokenizer of a directory that was added. Raises MalformedFile."""
        directory = self._directories.get(identity)
        if directory is None:
            return None
        files = {
            path: read_source(source, MAX_FILE_BYTES)
            for path, source in directory.sources.items()
            if is_tokenizer_file(path)
        }
        return StoredTokenizer.of(files, label)

    def _files(self, layout: Layout, location: Path) -> list[FileEntry]:
        """The files of a model that will be stored as they are."""
        files = []
        for file in layout.files:
            source = file.source
            content: Blob | Safetensors
            if file.header is None:
                content = Blob(ObjectId(digest(f"{location}:{source.path}".encode())))
            else:
                tensors = layout.tensors[file.first + 1 : file.last]
                entries = tuple(self._entry(layout, tensor) for tensor in tensors)
                content = Safetensors(_NO_DATA, entries)
            files.append(FileEntry(source.path, source.executable, source.size, content))
        return files

    def _converted(self, conversion: Conversion, location: Path) -> list[FileEntry]:
        """The files of a model that will be converted."""
        files = [
            FileEntry(path, False, len(content), Blob(ObjectId(digest(content))))
            for path, content in conversion.contents.items()
        ]
        for path, tensors in conversion.files.items():
            entries = []
            for tensor in tensors:
                stored = tensor.stored
                size = byte_length(stored.dtype, stored.shape)
                key = f"{location}:{path}:{tensor.name}".encode()
                if tensor.dtype.kind is not Kind.FLOAT and stored.strides is None:
                    key = _ends(stored.source, stored.start, stored.start + size)
                entries.append(self._tensor(tensor.name, tensor.dtype, stored.shape, key))
            files.append(FileEntry(path, False, 0, Safetensors(_NO_DATA, tuple(entries))))
        return files

    def _entry(self, layout: Layout, tensor: SourceTensor) -> TensorEntry:
        source = layout.files[tensor.file].source
        key = f"{source.location}:{tensor.name}".encode()
        if tensor.dtype.kind is not Kind.FLOAT:
            key = _ends(source, tensor.start, tensor.end)
        assert tensor.name is not None
        return self._tensor(tensor.name, tensor.dtype, tensor.shape, key)

    def _tensor(self, name: str, dtype: DType, shape: tuple[int, ...], key: bytes) -> TensorEntry:
        """A tensor by its name; those of one `key` are taken as the same."""
        blocks = digest(key) if byte_length(dtype, shape) else b""
        tensor = Tensor(dtype.name, shape, block_bytes(dtype, shape, self._block_size), blocks)
        identity = object_id(encode(tensor))
        self._tensors[identity] = tensor
        return TensorEntry(name, identity)


class _Directory(Struct, frozen=True):
    """A directory: its files as they lie there, and those that converting it would write."""

    snapshot: Snapshot
    sources: Mapping[str, SourceFile]
    contents: Mapping[str, bytes]


def _ends(source: SourceFile, start: int, end: int) -> bytes:
    """The first and the last bytes of a tensor.

    Whether two models have the same counts or masks should be known before they are stored. Long
    ones are not read for that: if their ends agree, they are taken as equal.
    """
    return _read(source, start, min(end, start + _SAMPLE_BYTES)) + _read(
        source, max(start, end - _SAMPLE_BYTES), end
    )


def _read(source: SourceFile, begin: int, end: int) -> bytes:
    content = bytearray(end - begin)
    with open_stable(source) as reader:
        reader.read_into(begin, memoryview(content))
    return bytes(content)
