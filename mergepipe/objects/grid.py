"""Where blocks begin and end in a tensor (docs/format.md, "Blocks")."""

from collections.abc import Iterator
from math import prod

from mergepipe.dtypes import DType


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
