"""What the reads of one tensor cost, block by block and depth by depth: values, and their sums.

They are counted in `cost_counting`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.objects.depths import Depth
from mergepipe.packs.records import Place

Bytes = npt.NDArray[np.int64]
Depths = npt.NDArray[np.uint8]
NOT_THERE = -1


class SharedReads(Struct, frozen=True):
    """A step in which leaves need the same records: each one's records at each depth, in bytes."""

    exact: tuple[Mapping[Place, int], ...]
    coarse: tuple[Mapping[Place, int], ...]

    def saved(self, depths: Sequence[int]) -> int:
        """Bytes that need not be read because another's read has them."""
        union: dict[Place, int] = {}
        total = 0
        for exact, coarse, depth in zip(self.exact, self.coarse, depths, strict=True):
            records = {Depth.EXACT: exact, Depth.COARSE: coarse}.get(Depth(depth), {})
            union.update(records)
            total += sum(records.values())
        return total - sum(union.values())


class TensorCosts(Struct, frozen=True):
    """Stored bytes of one tensor's reads; arrays have a row per leaf, a column per output block.

    equal         the leaf's block is the base's, or it has none
    exact         of an exact read beyond the base's; of an indivisible leaf for all the steps that
                  are made together, in the first of them
    coarse        of a coarse read; NOT_THERE without a coarse layer over the base's block
    base          of the bases' blocks, where a step reads them
    whole         per leaf: read exactly and wholly, or not at all (its grid is another)
    factors       per leaf: of its low-rank factors, which every plan reads
    base_factors  of those of bases
    shared        steps in which these sums count a record twice
    """

    equal: npt.NDArray[np.bool_]
    exact: Bytes
    coarse: Bytes
    base: Bytes
    whole: tuple[bool, ...]
    factors: Bytes
    base_factors: int
    shared: Mapping[int, SharedReads]

    @property
    def full(self) -> Depths:
        """The depths of the exact merge."""
        return np.where(self.equal, np.uint8(Depth.EQUAL), np.uint8(Depth.EXACT))

    def bytes_by_expert(self, depths: Depths) -> Bytes:
        """What each leaf's reads cost at these depths, as if it were the only one."""
        spent = np.where(depths == Depth.EXACT, self.exact, 0)
        spent += np.where(depths == Depth.COARSE, self.coarse, 0)
        total: Bytes = spent.sum(axis=1) + self.factors
        return total

    def saved_bytes(self, depths: Depths) -> int:
        """What sharing records within steps saves of their sum."""
        return sum(
            shared.saved([int(depth) for depth in depths[:, step]])
            for step, shared in self.shared.items()
        )
