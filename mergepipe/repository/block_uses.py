"""The blocks that history reaches, in arrays: some 50 bytes each, where a dict takes 300."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mergepipe.ids import ID_BYTES, BlockId, ObjectId
from mergepipe.packs.id_arrays import ID_DTYPE, NO_IDS, Ids, batches, begins, whole
from mergepipe.repository.problems import Owner


class BlockUses:
    """Each block with its length in bytes and who uses it first; rows are sorted by id.

    Filled by `add`, then `settle` once, then read.
    """

    def __init__(self) -> None:
        self._ids: Ids = NO_IDS
        self._lengths: NDArray[np.int64] = np.empty(0, np.int64)
        self._owners: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._users: list[tuple[Owner, ObjectId]] = []
        self._added: list[tuple[bytes, int, int]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self, user: Owner, tensor: ObjectId, blocks: bytes, block_bytes: int, size: int
    ) -> None:
        """Note a tensor of `size` bytes: its blocks, all of `block_bytes` but the last."""
        if blocks:
            self._users.append((user, tensor))
            self._added.append((blocks, block_bytes, size))

    def settle(self) -> Iterator[tuple[Owner, ObjectId, BlockId, int, int]]:
        """Sort all that was added; each block that cannot be as long as two users need it.

        Such a one comes with its later user, that one's tensor, its length there, and before.
        """
        lengths, owners = [], []
        for number, (blocks, block_bytes, size) in enumerate(self._added):
            count = len(blocks) // ID_BYTES
            each = np.full(count, block_bytes, np.int64)
            each[-1] = size - (count - 1) * block_bytes
            lengths.append(each)
            owners.append(np.full(count, number, np.uint32))
        ids = np.frombuffer(b"".join(blocks for blocks, _, _ in self._added), ID_DTYPE)
        self._added.clear()
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        length = np.concatenate(lengths)[order]
        owner = np.concatenate(owners)[order]
        first = begins(ids)
        group = np.cumsum(first) - 1
        told = length[first][group]
        for row in np.flatnonzero(length != told):
            user, tensor = self._users[owner[row]]
            yield user, tensor, whole(ids[row]), int(length[row]), int(told[row])
        self._ids, self._lengths, self._owners = ids[first], length[first], owner[first]

    def id(self, row: int) -> BlockId:
        """The id of the block in a row."""
        return whole(self._ids[row])

    def length(self, row: int) -> int:
        """Its length in bytes."""
        return int(self._lengths[row])

    def owner(self, row: int) -> Owner:
        """Who uses it first."""
        return self._users[int(self._owners[row])][0]

    def total_bytes(self) -> int:
        """The length of all blocks."""
        return int(self._lengths.sum())

    def batches(self, size: int) -> Iterator[tuple[int, list[BlockId]]]:
        """All ids, up to `size` at a time, with the row of the first."""
        for number, batch in enumerate(batches(self._ids, size)):
            yield number * size, batch
