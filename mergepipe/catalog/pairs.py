"""A tensor beside the tensor of a base that it is compared with.

Importing this loads no numpy: a commit of what the store has needs pairs and nothing else.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.dtypes import DType
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.records import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

COARSE_DTYPES = frozenset({"BF16", "F16", "F32"})


class Pair(Struct, frozen=True):
    """A tensor and the base's tensor that it pairs with; `blocks` are ids, in order."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    block_bytes: int
    size_bytes: int
    base_id: ObjectId
    base: Tensor
    base_bytes: int
    base_blocks: tuple[BlockId, ...]

    def span(self, index: int) -> tuple[int, int]:
        """Begin and end of a block, in bytes of the tensor."""
        begin = index * self.block_bytes
        return begin, min(self.size_bytes, begin + self.block_bytes)

    def base_block(self, index: int) -> BlockId | None:
        """The base block under a block, if it has the same length."""
        begin, end = self.span(index)
        if index >= len(self.base_blocks):
            return None
        if min(self.base_bytes, begin + self.block_bytes) != end:
            return None
        return self.base_blocks[index]

    @property
    def block_count(self) -> int:
        """Blocks of the tensor."""
        return -(-self.size_bytes // self.block_bytes)

    def has_profile(self) -> bool:
        """Whether statistics of the pair make sense: floats that are read element by element."""
        return self.dtype.name in COARSE_DTYPES

    def samples(self, index: int) -> "npt.NDArray[np.int64]":
        """Sample positions inside a block, counted from its first element."""
        import numpy as np

        from mergepipe.catalog.view import sample_positions

        width = self.dtype.bits // 8
        begin, end = self.span(index)
        positions = sample_positions(self.size_bytes // width)
        first, last = np.searchsorted(positions, (begin // width, end // width))
        return positions[first:last] - begin // width
