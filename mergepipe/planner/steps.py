"""How a merge falls into steps: one output block each, and the input blocks under it.

The output is cut where the layout's tensor is cut, in elements: a change of dtype changes the
length of its blocks, never where they begin. Shared by planner and engine.
"""

from dataclasses import dataclass
from math import prod
from typing import Self

from mergepipe.dtypes import DType, dtype_of
from mergepipe.errors import Corruption, MergeInputError
from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.objects.merging import Depth
from mergepipe.objects.records import Tensor
from mergepipe.packs.format import MAX_BLOCK_BYTES

_KEPT = frozenset((Depth.OMITTED, Depth.EQUAL))


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


def output_block_bytes(layout: Tensor, dtype: DType) -> int:
    """Length of the blocks of an output of `dtype` that is laid out as `layout`."""
    length = Grid.of(layout).per_block * dtype.bits // 8
    if length > MAX_BLOCK_BYTES:
        raise MergeInputError(
            f"blocks of {layout.block_bytes} bytes of {layout.dtype} are too long in {dtype}",
            "commit the models with a smaller store.block_size, or keep their dtype",
        )
    return length


def blocks_under(tensor: Tensor, grid: Grid, span: tuple[int, int]) -> list[BlockId]:
    """The ids of a tensor's blocks that a step's elements touch, in order."""
    return [
        BlockId(tensor.blocks[block * ID_BYTES : (block + 1) * ID_BYTES])
        for block in grid.under(*span)
    ]


def keeps_base(depths: bytes | tuple[int, ...], *, omitted_is_noop: bool, cast: bool) -> bool:
    """Whether a step's output is the base's block as it stands: then nothing is read for it.

    depths  one per expert. omitted_is_noop: the method's. cast: the output has another dtype.
    """
    return omitted_is_noop and not cast and all(depth in _KEPT for depth in depths)
