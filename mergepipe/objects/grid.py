"""Where blocks begin and end in a tensor (docs/format.md, "Blocks")."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mergepipe.dtypes import DType, byte_length, dtype_of
from mergepipe.errors import Corruption, MalformedFile
from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.objects.records import Tensor


@dataclass(frozen=True, slots=True)
class BlockUse:
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
    dtype, size = tensor_size(tensor, what)
    # Counted before they are listed: a hostile tensor may claim 2^60 bytes in blocks of one.
    count = len(tensor.blocks) // ID_BYTES
    if count != -(-size // tensor.block_bytes):
        raise Corruption(f"{what} has {count} blocks for {size} bytes")
    lengths = spans(size, tensor.block_bytes)
    return [
        BlockUse(block, end - begin, dtype)
        for block, (begin, end) in zip(tensor.block_ids(), lengths, strict=True)
    ]


def tensor_bytes(tensor: Tensor) -> int:
    """Raw size of a tensor. Raises MalformedFile for a dtype or shape that there is not."""
    return byte_length(dtype_of(tensor.dtype), tensor.shape)


def tensor_size(tensor: Tensor, what: str) -> tuple[DType, int]:
    """The dtype of a tensor, and its length in bytes. Raises Corruption for one that has none."""
    try:
        return dtype_of(tensor.dtype), tensor_bytes(tensor)
    except MalformedFile as error:
        raise Corruption(f"{what}: {error.message}", error.hint) from error
