"""How a merge falls into steps: one output block each, and the input blocks under it.

The output is cut where the layout's tensor is cut, in elements: a change of dtype changes the
length of its blocks, never where they begin. Shared by planner and engine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm, prod
from typing import Self

from mergepipe.dtypes import DType, dtype_of
from mergepipe.errors import Corruption, MergeInputError
from mergepipe.ids import ID_BYTES
from mergepipe.objects.records import Tensor
from mergepipe.packs.format import MAX_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Grid:
    """A tensor of `elements` cut into pieces of `per_block` (the last is shorter)."""

    elements: int
    per_block: int

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """The grid of a stored tensor; its dtype must fill whole bytes. Raises Corruption."""
        elements, bits = prod(tensor.shape), dtype_of(tensor.dtype).bits
        per_block = tensor.block_bytes * 8 // bits
        grid = cls(elements, per_block)
        if (
            bits % 8
            or per_block < 1
            or tensor.block_bytes * 8 % bits
            or len(tensor.blocks) != grid.blocks * ID_BYTES
        ):
            raise Corruption("a tensor does not have the blocks its shape needs")
        return grid

    @property
    def blocks(self) -> int:
        """How many pieces there are."""
        return -(-self.elements // self.per_block)

    def span(self, block: int) -> tuple[int, int]:
        """First element of a block, and the first after it."""
        start = block * self.per_block
        return start, min(self.elements, start + self.per_block)

    def under(self, start: int, end: int) -> range:
        """The blocks that elements `start` to `end` touch."""
        return range(start // self.per_block, -(-end // self.per_block))


def together(grid: Grid, others: Iterable[Grid]) -> int:
    """How many blocks of a grid belong together: those after which every other grid has a cut too.

    An input's block that lies under several of the output's is then read once, for all of them.
    """
    cut = lcm(grid.per_block, *(one.per_block for one in others))
    return max(1, min(grid.blocks, cut // grid.per_block))


def output_block_bytes(layout: Tensor, dtype: DType) -> int:
    """Length of the blocks of an output of `dtype` that is laid out as `layout`."""
    length = Grid.of(layout).per_block * dtype.bits // 8
    if length > MAX_BLOCK_BYTES:
        raise MergeInputError(
            f"blocks of {layout.block_bytes} bytes of {layout.dtype} are too long in {dtype}",
            "commit the models with a smaller store.block_size, or keep their dtype",
        )
    return length
