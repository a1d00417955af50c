"""Where blocks begin and end in a tensor, in bytes and in elements (docs/format.md, "Blocks")."""

from collections.abc import Iterator
from math import prod
from typing import Self

from msgspec import Struct

from mergepipe.dtypes import DType, byte_length, dtype_of
from mergepipe.errors import Corruption, MalformedFile
from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.objects.records import Tensor


class BlockUse(Struct, frozen=True):
    """A block as a tensor uses it; `length` in bytes."""

    id: BlockId
    length: int
    dtype: DType


def block_bytes(dtype: DType, shape: tuple[int, ...], limit: int) -> int:
    """Length of a tensor's blocks in bytes: whole rows where a row fits into `limit`."""
    if dtype.bits % 8:
        return limit
    row_bytes = prod(shape[1:]) * dtype.bits // 8
    if not 0 < row_bytes <= limit:
        return limit
    return limit // row_bytes * row_bytes


def spans(total_bytes: int, block: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each block of `total_bytes`, in order."""
    for begin in range(0, total_bytes, block):
        yield begin, min(total_bytes, begin + block)


def blocks_of(tensor: Tensor, what: str) -> list[BlockUse]:
    """The blocks of a tensor, in order. Raises Corruption if they cannot make the tensor."""
    dtype, size = checked_size(tensor, what)
    lengths = spans(size, tensor.block_bytes)
    return [
        BlockUse(block, end - begin, dtype)
        for block, (begin, end) in zip(tensor.block_ids(), lengths, strict=True)
    ]


def checked_size(tensor: Tensor, what: str) -> tuple[DType, int]:
    """A tensor's dtype, and its size in bytes. Raises Corruption if its blocks cannot make it."""
    dtype, size = tensor_size(tensor, what)
    # Counted before they are listed: a hostile tensor may claim 2^60 bytes in blocks of one.
    count = len(tensor.blocks) // ID_BYTES
    if count != -(-size // tensor.block_bytes):
        raise Corruption(f"{what} has {count} blocks for {size} bytes")
    return dtype, size


def tensor_bytes(tensor: Tensor) -> int:
    """Raw size of a tensor. Raises MalformedFile for a dtype or shape that there is not."""
    return byte_length(dtype_of(tensor.dtype), tensor.shape)


def tensor_size(tensor: Tensor, what: str) -> tuple[DType, int]:
    """The dtype of a tensor, and its length in bytes. Raises Corruption for one that has none."""
    try:
        return dtype_of(tensor.dtype), tensor_bytes(tensor)
    except MalformedFile as error:
        raise Corruption(f"{what}: {error.message}", error.hint) from error


class Grid(Struct, frozen=True):
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
