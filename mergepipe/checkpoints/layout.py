"""How files fall into tensors, and tensors into the pieces that workers take."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from mergepipe.dtypes import U8, DType
from mergepipe.formats.safetensors import Header, read_header
from mergepipe.formats.tree import SourceFile, open_stable
from mergepipe.objects.grid import block_bytes, spans

# A worker's piece: long enough to outweigh a task's overhead, short enough to balance the cores.
PIECE_BYTES = 4 << 20
_SUFFIX = ".safetensors"


class SourceTensor(Struct, frozen=True):
    """A tensor (or opaque file, or header) in a file: bytes `start` to `end`, cut by a grid."""

    file: int
    name: str | None
    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int
    block_bytes: int


class FileLayout(Struct, frozen=True):
    """A file and where its tensors stand in `Layout.tensors`; `header` is None for opaque files."""

    source: SourceFile
    first: int
    last: int
    header: Header | None


class Layout(Struct, frozen=True):
    """All files of a checkpoint, cut into tensors in the order of their bytes."""

    files: tuple[FileLayout, ...]
    tensors: tuple[SourceTensor, ...]

    @property
    def raw_bytes(self) -> int:
        """Size of all files."""
        return sum(file.source.size for file in self.files)


class Span(Struct, frozen=True):
    """One block to be: bytes `start` to `end` of its file, block `index` of tensor `tensor`."""

    tensor: int
    index: int
    start: int
    end: int


def is_tensor_file(path: str) -> bool:
    """Whether a file of this name is read as safetensors."""
    return path.endswith(_SUFFIX)


def lay_out(sources: Sequence[SourceFile], limit: int) -> Layout:
    """Read every header and cut every file; `limit` is the largest block in bytes.

    Raises MalformedFile naming file and tensor.
    """
    files: list[FileLayout] = []
    tensors: list[SourceTensor] = []
    for number, source in enumerate(sources):
        first = len(tensors)
        header = None
        if is_tensor_file(source.path):
            with open_stable(source) as reader:
                header = read_header(reader, source.size, source.path)
            tensors.append(_opaque(number, len(header.raw), limit))
            tensors += [
                SourceTensor(
                    file=number,
                    name=tensor.name,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    start=tensor.start,
                    end=tensor.end,
                    block_bytes=block_bytes(tensor.dtype, tensor.shape, limit),
                )
                for tensor in header.tensors
            ]
        else:
            tensors.append(_opaque(number, source.size, limit))
        files.append(FileLayout(source, first, len(tensors), header))
    return Layout(tuple(files), tuple(tensors))


def pieces(layout: Layout) -> Iterator[list[Span]]:
    """Neighbouring blocks of one file, up to PIECE_BYTES at a time, in the order of the bytes."""
    for file in layout.files:
        piece: list[Span] = []
        for number in range(file.first, file.last):
            tensor = layout.tensors[number]
            for index, (begin, end) in enumerate(
                spans(tensor.end - tensor.start, tensor.block_bytes)
            ):
                span = Span(number, index, tensor.start + begin, tensor.start + end)
                if piece and span.end - piece[0].start > PIECE_BYTES:
                    yield piece
                    piece = []
                piece.append(span)
        if piece:
            yield piece


def _opaque(file: int, length: int, limit: int) -> SourceTensor:
    return SourceTensor(
        file=file, name=None, dtype=U8, shape=(length,), start=0, end=length, block_bytes=limit
    )
