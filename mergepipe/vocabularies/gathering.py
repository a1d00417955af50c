"""Rows of stored tensors, brought together: read block by block, each block once for every piece.

Means are taken in float32 (float64 for F64 tensors) and rounded once, to the nearest even.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mergepipe.checkpoints.derived import Reads
from mergepipe.dtypes import DType, byte_length, dtype_of
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.records import Tensor
from mergepipe.values import decode
from mergepipe.vocabularies.row_maps import MEAN, Row, RowMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Places = NDArray[np.int64]

# What rows can be averaged in, and converted to.
ARITHMETIC = frozenset({"BF16", "F16", "F32", "F64"})
_READ_BYTES = 8 << 20


class StoredRows(Struct, frozen=True):
    """A stored tensor as rows of `row_bytes` bytes."""

    identity: ObjectId
    tensor: Tensor
    dtype: DType
    rows: int
    row_bytes: int
    blocks: tuple[BlockId, ...]

    @classmethod
    def of(cls, identity: ObjectId, tensor: Tensor) -> "StoredRows":
        """A tensor of at least one dimension."""
        dtype = dtype_of(tensor.dtype)
        width = byte_length(dtype, tensor.shape[1:])
        return cls(identity, tensor, dtype, tensor.shape[0], width, tuple(tensor.block_ids()))

    @property
    def rows_per_block(self) -> int | None:
        """Whole rows in a block; None where blocks cut rows."""
        rows, rest = divmod(self.tensor.block_bytes, max(1, self.row_bytes))
        return rows if rows and not rest else None

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.row_bytes * 8 // self.dtype.bits


class Gatherer(Struct, frozen=True):
    """Makes the rows of a map, as `dtype`. `sources` are the models' tensors, by model."""

    map: RowMap
    sources: Sequence[StoredRows | None]
    own: StoredRows
    reads: Reads

    def rows(self, first: int, last: int) -> "Bytes":
        """Rows `first` to `last`, none of them padding: an array of bytes, one line for each."""
        import numpy as np

        table = np.zeros((last - first, self.own.row_bytes), np.uint8)
        models = np.asarray(self.map.models[first:last], np.int64)
        rows = np.asarray(self.map.rows[first:last], np.int64)
        for model in np.unique(models[models >= 0]):
            at = np.flatnonzero(models == model)
            for slots, taken in self._taken(int(model), rows[at]):
                table[at[slots]] = self._converted(int(model), taken)
        at = np.flatnonzero(models == MEAN)
        if len(at):
            table[at] = self._means([self.map.means[place] for place in rows[at]])
        return table

    def mean_row(self) -> "Bytes":
        """The mean of all rows but the padding, summed in float64 in the order of the sources."""
        import numpy as np

        total: Any = np.zeros(self.own.columns, np.float64)
        for row in self._all_rows():
            total += self._decoded(self.own, row).sum(axis=0, dtype=np.float64)
        return rounded(self.own.dtype, total / max(1, len(self.map.models)))

    def _all_rows(self) -> "Iterator[Bytes]":
        """All rows but those of zeros, some at a time: every source is read once, from the top."""
        import numpy as np

        models, rows = np.asarray(self.map.models), np.asarray(self.map.rows, np.int64)
        for model in np.unique(models[models >= 0]).tolist():
            for _, taken in self._taken(model, rows[models == model]):
                yield self._converted(model, taken)
        means = [self.map.means[place] for place in rows[models == MEAN]]
        at_once = max(1, _READ_BYTES // max(1, self.own.row_bytes))
        for first in range(0, len(means), at_once):
            yield self._means(means[first : first + at_once])

    def _means(self, means: Sequence[tuple[Row, ...]]) -> "Bytes":
        """One line for each mean; its rows are summed in the order in which it names them."""
        import numpy as np

        wide = np.float64 if self.own.dtype.name == "F64" else np.float32
        sums = np.zeros((len(means), self.own.columns), wide)
        for turn in range(max(len(mean) for mean in means)):
            having = [number for number, mean in enumerate(means) if turn < len(mean)]
            models = np.array([means[number][turn][0] for number in having])
            rows = np.array([means[number][turn][1] for number in having], np.int64)
            at = np.array(having)
            for model in np.unique(models):
                chosen = np.flatnonzero(models == model)
                for slots, taken in self._taken(int(model), rows[chosen]):
                    values = self._decoded(self._source(model), taken)
                    sums[at[chosen[slots]]] += values.astype(wide, copy=False)
        counts = np.array([len(mean) for mean in means], wide)
        return rounded(self.own.dtype, sums / counts[:, None])

    def _taken(self, model: int, rows: "Places") -> "Iterator[tuple[Places, Bytes]]":
        """Rows of a model's tensor, some at a time: their places in `rows`, and their bytes."""
        import numpy as np

        source = self._source(model)
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        size = source.tensor.block_bytes
        at_once = max(1, _READ_BYTES // max(size, source.row_bytes)) * size
        at = 0
        while at < len(order):
            # All rows whose bytes end within the blocks from the first one's on.
            start = int(sorted_rows[at]) * source.row_bytes // size * size
            whole = (start + at_once) // max(1, source.row_bytes)
            stop = max(at + 1, int(np.searchsorted(sorted_rows, whole)))
            yield order[at:stop], self._lines(source, sorted_rows[at:stop])
            at = stop

    def _lines(self, source: StoredRows, rows: "Places") -> "Bytes":
        import numpy as np

        width, size = source.row_bytes, source.tensor.block_bytes
        begins = rows * width
        wanted = np.unique(
            np.concatenate([begins // size, (begins + max(1, width) - 1) // size])
            if width <= size
            else np.concatenate([np.arange(b // size, (b + width - 1) // size + 1) for b in begins])
        )
        raws = self.reads.read([source.blocks[block] for block in wanted])
        lines = np.empty((len(rows), width), np.uint8)
        per = source.rows_per_block
        if per is not None:
            for block, raw in zip(wanted, raws, strict=True):
                low, high = np.searchsorted(rows, (block * per, (block + 1) * per))
                table = np.frombuffer(raw, np.uint8).reshape(-1, width)
                lines[low:high] = table[rows[low:high] - block * per]
            return lines
        places = {int(block): place for place, block in enumerate(wanted)}
        for line, begin in zip(lines, begins.tolist(), strict=True):
            filled = 0
            while filled < width:
                block, offset = divmod(begin + filled, size)
                piece = np.frombuffer(raws[places[block]], np.uint8)[offset:][: width - filled]
                line[filled : filled + len(piece)] = piece
                filled += len(piece)
        return lines

    def _source(self, model: int) -> StoredRows:
        source = self.sources[model]
        assert source is not None
        return source

    def _decoded(self, source: StoredRows, lines: "Bytes") -> Any:
        return decode(source.dtype, lines.reshape(-1).data).reshape(len(lines), -1)

    def _converted(self, model: int, lines: "Bytes") -> "Bytes":
        source = self._source(model)
        if source.dtype == self.own.dtype:
            return lines
        return rounded(self.own.dtype, self._decoded(source, lines))


def rounded(dtype: DType, values: Any) -> "Bytes":
    """Floats in a dtype of ARITHMETIC, to the nearest even; the last axis becomes bytes."""
    import numpy as np

    if dtype.name == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        odd = (bits >> 16) & 1
        halves = ((bits.astype(np.uint64) + 0x7FFF + odd) >> 16).astype("<u2")
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        halves[nan] = (bits[nan] >> 16 | 0x40).astype("<u2")
        return halves.view(np.uint8)
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(
            values, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype.name]
        )
    return narrow.view(np.uint8)
