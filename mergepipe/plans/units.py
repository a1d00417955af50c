"""How much of a tensor is made at once: a block, whole rows or all, and which blocks with it.

The output is cut where the layout's tensor is cut, in elements: a change of dtype changes the
length of its blocks, never where they begin.
"""

from collections.abc import Iterable
from math import lcm, prod

from mergepipe.dtypes import DType
from mergepipe.errors import MergeInputError
from mergepipe.methods.protocol import Scope
from mergepipe.objects.grid import Grid
from mergepipe.objects.records import Tensor
from mergepipe.packs.format import MAX_BLOCK_BYTES


def together(grid: Grid, others: Iterable[Grid]) -> int:
    """How many blocks of a grid belong together: those after which every other grid has a cut too.

    An input's block that lies under several of the output's is then read once, for all of them.
    """
    cut = lcm(grid.per_block, *(other.per_block for other in others))
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


def unit_blocks(scope: Scope, like: Tensor) -> int:
    """How many blocks of its grid a unit of this scope covers, at least: whole rows, all of it."""
    grid = Grid.of(like)
    if scope is Scope.ELEMENT or grid.blocks < 2:
        return 1
    if scope is Scope.TENSOR:
        return grid.blocks
    row = like.shape[-1] if like.shape else 1
    return min(grid.blocks, lcm(grid.per_block, row) // grid.per_block)


def widest(*scopes: Scope) -> Scope:
    """The scope that all others lie in."""
    order = (Scope.ELEMENT, Scope.ROW, Scope.TENSOR)
    return max(scopes, key=order.index)


def fits(up: Tensor, down: Tensor, like: Tensor) -> bool:
    """Whether up (rows x rank) times down (rank x columns) has the elements of a tensor."""
    if len(up.shape) < 2 or len(down.shape) < 2:
        return False
    rank = prod(up.shape[1:])
    return down.shape[0] == rank and up.shape[0] * prod(down.shape[1:]) == prod(like.shape)
