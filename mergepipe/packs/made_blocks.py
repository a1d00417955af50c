"""Raw blocks that this process has just made and stored, for who wants their bytes at once."""

import threading
from collections.abc import Iterable

from mergepipe.ids import BlockId


class MadeBlocks:
    """Raw bytes by id, of as many blocks as there is room for. May be used from any thread."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._raws: dict[BlockId, memoryview] = {}
        self._lock = threading.Lock()

    def keep(self, block: BlockId, raw: memoryview) -> None:
        """Keep a block whose id was just computed and whose memory nobody writes to any more.

        Where there is no room for it, it is read from the store, as any other.
        """
        with self._lock:
            if len(raw) <= self._room_bytes and block not in self._raws:
                self._room_bytes -= len(raw)
                self._raws[block] = raw

    def of(self, blocks: Iterable[BlockId]) -> dict[BlockId, memoryview]:
        """Those of some blocks that were kept."""
        return {block: self._raws[block] for block in blocks if block in self._raws}
