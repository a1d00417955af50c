"""How the blocks of an input tensor lie under the blocks of the output.

The output is cut where the layout's tensor is cut, in elements (plans.units). An input *pairs*
with it if it is cut at the same elements: then output block i takes block i of the input, and a
plan may choose a depth for each. An input that does not pair (another block size, or a dtype of
another width under the same one) is read exactly as a whole or not at all: an output block takes
pieces of as many of its blocks as its elements touch.
"""

from msgspec import Struct

from mergepipe.dtypes import DType, dtype_of
from mergepipe.engine.work import Piece
from mergepipe.ids import BlockId
from mergepipe.objects.grid import Grid
from mergepipe.objects.records import Tensor


class InputTensor(Struct, frozen=True):
    """An input's tensor: its dtype, where it is cut, and its blocks."""

    dtype: DType
    grid: Grid
    blocks: tuple[BlockId, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "InputTensor":
        """A stored tensor as an input. Raises Corruption if its blocks do not fill it."""
        return cls(dtype_of(tensor.dtype), Grid.of(tensor), tuple(tensor.block_ids()))

    def pieces(self, start: int, end: int) -> tuple[Piece, ...]:
        """What holds elements `start` to `end`, in order."""
        width = self.dtype.bits // 8
        if start % self.grid.per_block == 0:
            index = start // self.grid.per_block
            if self.grid.span(index)[1] == end:  # one block, as nearly always
                length = (end - start) * width
                return (Piece(self.blocks[index], 0, length, length),)
        slices = []
        for index in self.grid.under(start, end):
            first, last = self.grid.span(index)
            begin, stop = max(start, first) - first, min(end, last) - first
            piece = Piece(self.blocks[index], begin * width, stop * width, (last - first) * width)
            slices.append(piece)
        return tuple(slices)
