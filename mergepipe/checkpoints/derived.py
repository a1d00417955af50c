"""Tensors that are made of stored ones before a merge: how those are read, and these stored."""

from collections.abc import Sequence

from msgspec import Struct

from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader

# Made at once, of one model and of the base: what bounds the memory. A vocabulary in quite another
# order reads each source block once for every such piece that takes rows from it.
PIECE_BYTES = 32 << 20


class Storing(Struct, frozen=True):
    """How blocks are stored: `store.codec`, `store.max_chain`, and threads that encode."""

    codec: str = "auto"
    max_chain: int = 2
    threads: int = 1
    piece_bytes: int = PIECE_BYTES


class Reads:
    """Reads blocks and counts what that takes from storage."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self.read_bytes = 0

    def read(self, blocks: Sequence[BlockId]) -> list[memoryview]:
        """The raw bytes of blocks. Raises MissingObject and Corruption."""
        places = {
            (at.pack, at.offset): at.stored_bytes
            for encoding in self._reader.resolve(blocks).values()
            for at in encoding.exact
        }
        self.read_bytes += sum(places.values())
        return self._reader.read(blocks)

    def ancestor(self, block: BlockId, max_chain: int) -> BlockId:
        """What to lean on so that no chain grows longer than `max_chain`."""
        chain = self._reader.chain(block)
        return chain[max(0, len(chain) - max_chain)]
