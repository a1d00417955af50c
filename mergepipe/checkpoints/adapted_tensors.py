"""Tensors that an adapter makes of a model's, where that is no sum with a low-rank change.

DoRA gives every row of a changed weight a length of its own (Liu et al., "DoRA: Weight-Decomposed
Low-Rank Adaptation", 2024, equation 5), and biases of factors are scaled as the factors are. Both
are stored as tensors of their own before a merge takes them in, in float32 (float64 of F64), so
that the merge rounds once, to the dtype that the model's tensor has. Computed in float64.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mergepipe.checkpoints.derived import Reads, Storing
from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DTYPES, dtype_of
from mergepipe.ids import ObjectId, block_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import block_bytes
from mergepipe.objects.merging import LowRank
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectSource
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.sink import Sink
from mergepipe.values import count_nonfinite, decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

_PIECE_BYTES = 8 << 20


class Lengths(Struct, frozen=True):
    """What a weight's rows, or columns, are brought to: `of` is a tensor of one number for each."""

    of: ObjectId
    columns: bool


class Adaptation(Struct, frozen=True):
    """What a stored tensor becomes: it and a change, brought to lengths, and more added to that.

    change  a low-rank one of the tensor
    added   a tensor of its shape, and what it is multiplied by
    """

    tensor: ObjectId
    change: LowRank | None = None
    lengths: Lengths | None = None
    added: tuple[ObjectId, float] | None = None

    @property
    def named(self) -> tuple[ObjectId, ...]:
        """Every stored tensor that it takes in, its own first."""
        factors = () if self.change is None else (self.change.up, self.change.down)
        lengths = () if self.lengths is None else (self.lengths.of,)
        return (self.tensor, *factors, *lengths, *(() if self.added is None else self.added[:1]))


def store_adapted(
    adaptation: Adaptation,
    *,
    objects: ObjectSource,
    reader: BlockReader,
    sink: Sink,
    storing: Storing,
    block_limit: int,
) -> tuple[ObjectId, int, int]:
    """Make the tensor and store it: its id, the bytes read, and how many values are not finite.

    Read twice where columns are measured; memory holds the factors and some rows. Raises what
    reading raises.
    """
    making = _Making(adaptation, objects, Reads(reader))
    dtype = DTYPES["F64" if making.own.dtype == "F64" else "F32"]
    shape = making.own.shape
    size = block_bytes(dtype, shape, block_limit)
    ids: list[bytes] = []
    codec = None
    workspace = Workspace()
    nonfinite = 0
    for raw in _cut(making.pieces("<f8" if dtype.name == "F64" else "<f4"), size):
        identity = block_id(raw)
        ids.append(identity)
        nonfinite += count_nonfinite(dtype, raw)
        if not sink.has_block(identity):
            codec = codec or choose(storing.codec, dtype, samples_of(raw, None), workspace)
            chosen = codec_named("raw") if codec.needs_base else codec
            sink.add_block(encode_block(identity, raw, dtype, chosen, workspace=workspace))
    tensor = sink.add_object(encode(Tensor(dtype.name, shape, size, b"".join(ids))))
    return tensor, making.reads.read_bytes, nonfinite


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


class _Making:
    def __init__(self, adaptation: Adaptation, objects: ObjectSource, reads: Reads) -> None:
        self.own = objects.tensor(adaptation.tensor)
        self.reads = reads
        self._objects = objects
        self._adaptation = adaptation
        self._rows = self.own.shape[0] if self.own.shape else 1
        size = 1
        for length in self.own.shape[1:]:
            size *= length
        self._width = size
        self._factors = None if adaptation.change is None else self._read_factors(adaptation.change)

    def pieces(self, written: str) -> Iterator[bytes]:
        """The tensor's bytes, some rows at a time."""
        import numpy as np

        lengths, added = self._adaptation.lengths, self._adaptation.added
        given = None if lengths is None else self._whole(lengths.of).reshape(-1)
        columns = lengths is not None and lengths.columns
        factor: Any = None
        # A row of zeros has no direction: it comes out as values that are not finite, as in peft.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if given is not None and columns:
                squares = np.zeros(self._width)
                for _, values in self._changed():
                    squares += np.square(values).sum(axis=0)
                factor = (given / np.sqrt(squares))[None, :]
            for first, values in self._changed():
                if given is not None and not columns:
                    norms = np.sqrt(np.square(values).sum(axis=1))
                    factor = (given[first : first + len(values)] / norms)[:, None]
                if factor is not None:
                    values = values * factor
                if added is not None:
                    more = self._read(added[0], first, len(values))
                    values = values + added[1] * more
                yield values.astype(written).tobytes()

    def _changed(self) -> "Iterator[tuple[int, Doubles]]":
        """Rows of the tensor with its change, and the first one's number."""
        at_once = max(1, _PIECE_BYTES // max(1, 8 * self._width))
        for first in range(0, self._rows, at_once):
            count = min(at_once, self._rows - first)
            values = self._read(self._adaptation.tensor, first, count)
            if self._factors is not None and self._adaptation.change is not None:
                left, right = self._factors
                product = left[first : first + count] @ right
                values = values + self._adaptation.change.scale * product
            yield first, values

    def _read_factors(self, change: LowRank) -> "tuple[Doubles, Doubles]":
        """Two matrices whose product is the change, unscaled."""
        up, down = self._whole(change.up), self._whole(change.down)
        up, down = up.reshape(len(up), -1), down.reshape(len(down), -1)
        return (down.T, up.T) if change.transposed else (up, down)

    def _whole(self, identity: ObjectId) -> "Doubles":
        tensor = self._objects.tensor(identity)
        raw = b"".join(self.reads.read(tuple(tensor.block_ids())))
        return self._doubles(tensor, raw).reshape(tensor.shape)

    def _read(self, identity: ObjectId, first: int, count: int) -> "Doubles":
        """Rows of a tensor of this one's shape, as a matrix."""
        tensor = self._objects.tensor(identity)
        width = self._width * dtype_of(tensor.dtype).bits // 8
        begin, end = first * width, (first + count) * width
        size = tensor.block_bytes
        blocks = tuple(tensor.block_ids())[begin // size : -(-end // size)] if end > begin else ()
        raw = b"".join(self.reads.read(blocks))[begin % size :][: end - begin] if blocks else b""
        return self._doubles(tensor, raw).reshape(count, self._width)

    def _doubles(self, tensor: Tensor, raw: bytes) -> "Doubles":
        import numpy as np

        values: Any = decode(dtype_of(tensor.dtype), memoryview(raw))
        doubles: Doubles = values.astype(np.float64)
        return doubles
