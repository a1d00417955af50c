"""A layout: the snapshot that says which files a merge's output has, before any tensor is made.

Its tensor files name the output's tensors in their order; what stands there are stored tensors of
the same shape, which give the block grid (`planner.lines.Line.like`). All other files are final.
Nothing of a weight is read for it.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import U8, dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.safetensors import build_header
from mergepipe.formats.shards import SHARD_BYTES, STEM, cut_into_shards, shard_index
from mergepipe.ids import BlockId, ObjectId, block_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import spans, tensor_bytes
from mergepipe.objects.paths import check_paths
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.sink import Sink

# What transformers asks for before it loads a file.
_METADATA = {"format": "pt"}


class LaidTensor(Struct, frozen=True):
    """An output tensor: its name, and the stored tensor whose shape, dtype and grid it has.

    stem  of the files that hold it, with the directory of its component: `unet/model`
    """

    name: str
    like: ObjectId
    stored: Tensor
    stem: str = STEM

    @property
    def size_bytes(self) -> int:
        """Raw size of the stored one."""
        return tensor_bytes(self.stored)


def write_layout(
    tensors: Sequence[LaidTensor],
    files: Mapping[str, bytes],
    carried: Iterable[FileEntry],
    sink: Sink,
    *,
    block_size: int,
    shard_bytes: int = SHARD_BYTES,
    sizes: Sequence[int] | None = None,
) -> ObjectId:
    """Write a layout; returns the snapshot's id.

    files        what is made for this output (config.json, README.md...), by path
    carried      files of an input that are taken over; `files` beats them
    shard_bytes  tensor data of a file at most
    sizes        of the output's tensors in bytes, where the dtype changes: what shards are cut by

    Raises MergeInputError for two tensors of one name, UnsafePath, UsageError.
    """
    files_by_path = dict(files)
    entries: list[FileEntry] = []
    for stem in dict.fromkeys(tensor.stem for tensor in tensors):
        places = [place for place, tensor in enumerate(tensors) if tensor.stem == stem]
        of_shard = [tensors[place] for place in places]
        names = [tensor.name for tensor in of_shard]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise MergeInputError(f"the output would have two tensors called {quoted(twice)}")
        bytes_of = [of_shard[at].size_bytes if sizes is None else sizes[place]
                    for at, place in enumerate(places)]  # fmt: skip
        shards = cut_into_shards(bytes_of, shard_bytes, stem)
        if len(shards) > 1:
            files_by_path[stem + INDEX_SUFFIX] = shard_index(shards, names, sum(bytes_of))
        entries += [
            _tensor_file(shard.path, [of_shard[place] for place in shard.tensors], sink, block_size)
            for shard in shards
        ]
    entries += [
        FileEntry(path, False, len(data), Blob(write_bytes(data, sink, block_size)))
        for path, data in files_by_path.items()
    ]
    taken = {entry.path for entry in entries}
    entries += [entry for entry in carried if entry.path not in taken]
    entries.sort(key=lambda entry: entry.path.encode())
    check_paths([entry.path for entry in entries])
    return sink.add_object(encode(Snapshot(tuple(entries))))


def write_bytes(data: bytes, sink: Sink, block_size: int) -> ObjectId:
    """A file's bytes as a U8 tensor in a sink; returns the tensor's id."""
    ids: list[BlockId] = []
    for begin, end in spans(len(data), block_size):
        piece = memoryview(data)[begin:end]
        identity = block_id(piece)
        if not sink.has_block(identity):
            sink.add_block(encode_block(identity, piece, U8, codec_named("zstd")))
        ids.append(identity)
    return sink.add_object(encode(Tensor(U8.name, (len(data),), block_size, b"".join(ids))))


def with_contents(
    snapshot: Snapshot, contents: Mapping[str, bytes], sink: Sink, block_size: int
) -> Snapshot:
    """A snapshot with other bytes of some of its files, which are written into a sink."""
    files = []
    for entry in snapshot.files:
        data = contents.get(entry.path)
        if data is not None:
            blob = Blob(write_bytes(data, sink, block_size))
            files.append(FileEntry(entry.path, entry.executable, len(data), blob))
        else:
            files.append(entry)
    return Snapshot(tuple(files))


def _tensor_file(
    path: str, tensors: Sequence[LaidTensor], sink: Sink, block_size: int
) -> FileEntry:
    header = build_header(
        [(tensor.name, dtype_of(tensor.stored.dtype), tensor.stored.shape) for tensor in tensors],
        _METADATA,
    )
    entries = tuple(TensorEntry(one.name, one.like) for one in tensors)
    size = len(header) + sum(one.size_bytes for one in tensors)
    content = Safetensors(write_bytes(header, sink, block_size), entries)
    return FileEntry(path, False, size, content)
