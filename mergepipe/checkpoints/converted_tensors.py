"""Tensors on their way into a converted checkpoint: where they are, and the bytes they become."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mergepipe.dtypes import DTYPES, F32, DType, byte_length
from mergepipe.formats.safetensors import TensorInfo
from mergepipe.formats.torch_pickle import PickledTensor
from mergepipe.formats.tree import SourceFile, StableReader, open_stable
from mergepipe.values import decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIECE_BYTES = 8 << 20


class Stored(Struct, frozen=True):
    """Where a tensor's bytes are now: in a file, as they will be, or strided."""

    source: SourceFile
    dtype: DType
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None

    @classmethod
    def of(cls, source: SourceFile, info: TensorInfo) -> "Stored":
        """A tensor of a safetensors file."""
        return cls(source, info.dtype, info.shape, info.start)

    @classmethod
    def pickled(cls, source: SourceFile, tensor: PickledTensor) -> "Stored":
        """A tensor of a pickle."""
        strides = None if tensor.contiguous else tensor.strides
        return cls(source, tensor.dtype, tensor.shape, tensor.start, strides)


class NewTensor(Struct, frozen=True):
    """A tensor to be written: as it is stored, or the numbers that codes and scales stand for.

    scaled  it is 8-bit floats, whose elements share scales by `blocks` (None: it has no scale)
    """

    name: str
    stored: Stored
    scaled: bool = False
    scale: Stored | None = None
    blocks: tuple[int, ...] | None = None

    @property
    def dtype(self) -> DType:
        """Of what is written."""
        return F32 if self.scaled else self.stored.dtype


class OpenSources:
    """Source files, each open from the first read to the end."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Any, StableReader]] = {}

    def __enter__(self) -> "OpenSources":
        return self

    def __exit__(self, *error: Any) -> None:
        for context, _ in self._open.values():
            context.__exit__(*error)

    def read(self, source: SourceFile, start: int, size: int) -> bytearray:
        """Bytes of a file."""
        if source.path not in self._open:
            context = open_stable(source)
            self._open[source.path] = context, context.__enter__()
        content = bytearray(size)
        self._open[source.path][1].read_into(start, memoryview(content))
        return content


def pieces_of(tensor: NewTensor, readers: OpenSources) -> Iterator[bytes | bytearray]:
    """A tensor's bytes, some at a time."""
    stored = tensor.stored
    if tensor.scaled:
        yield from _dequantized(tensor, readers)
    elif stored.strides is not None:
        yield _restrided(stored, readers)
    else:
        size = byte_length(stored.dtype, stored.shape)
        for begin in range(0, size, _PIECE_BYTES):
            length = min(_PIECE_BYTES, size - begin)
            yield readers.read(stored.source, stored.start + begin, length)


def _restrided(stored: Stored, readers: OpenSources) -> bytes:
    """The elements of a view, in the order of its shape. Read as a whole."""
    import numpy as np

    assert stored.strides is not None
    width = stored.dtype.bits // 8
    count = 1 + sum((n - 1) * s for n, s in zip(stored.shape, stored.strides, strict=True))
    raw = np.frombuffer(readers.read(stored.source, stored.start, count * width), f"V{width}")
    strides = [stride * width for stride in stored.strides]
    return np.lib.stride_tricks.as_strided(raw, stored.shape, strides).tobytes()


def _dequantized(tensor: NewTensor, readers: OpenSources) -> Iterator[bytes]:
    """Codes times scales in float32, some rows at a time."""
    import numpy as np

    stored, shape = tensor.stored, tensor.stored.shape
    table = decode(stored.dtype, memoryview(bytes(range(256)))).astype(np.float32)
    row = int(np.prod(shape[1:], dtype=np.int64)) if shape else 1
    rows = shape[0] if shape else 1
    scales = None if tensor.scale is None else _scales(tensor, readers)
    at_once = max(1, _PIECE_BYTES // max(1, row))
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        codes = readers.read(stored.source, stored.start + first * row, count * row)
        numbers = table[np.frombuffer(codes, np.uint8)].reshape(count, *shape[1:])
        if scales is not None and tensor.blocks is not None:
            numbers = numbers * _spread(scales, tensor.blocks, shape, first, count)
        yield np.asarray(numbers, dtype="<f4").tobytes()


def _scales(tensor: NewTensor, readers: OpenSources) -> "NDArray[np.float32]":
    """All scales of a tensor, with its dimensions: one for each block."""
    import numpy as np

    scale = tensor.scale
    assert scale is not None
    assert tensor.blocks is not None
    size = byte_length(scale.dtype, scale.shape)
    raw = readers.read(scale.source, scale.start, size)
    dtype = DTYPES["F8_E8M0"] if scale.dtype.name == "U8" else scale.dtype
    values = decode(dtype, memoryview(raw)).astype(np.float32)
    grid = [
        -(-length // block) if block else 1
        for length, block in zip(tensor.stored.shape, tensor.blocks, strict=True)
    ]
    return values.reshape(grid)


def _spread(
    scales: "NDArray[np.float32]",
    blocks: tuple[int, ...],
    shape: tuple[int, ...],
    first: int,
    count: int,
) -> "NDArray[np.float32]":
    """The scale of every element of some rows."""
    import numpy as np

    if not shape:
        return scales
    places = np.arange(first, first + count) // max(1, blocks[0])
    spread = scales[places]
    for axis in range(1, len(shape)):
        if spread.shape[axis] not in (1, shape[axis]):
            spread = np.repeat(spread, blocks[axis], axis=axis)
            spread = np.take(spread, np.arange(shape[axis]), axis=axis)
    return spread
