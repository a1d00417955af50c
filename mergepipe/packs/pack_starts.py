"""The first bytes of packs, read once: most packs of objects are no longer, and read in parts."""

from mergepipe.bytestore.protocol import Buffer, ByteStore
from mergepipe.packs.reader import read_exactly

_START_BYTES = 64 << 10
_MOST_STARTS = 1024


class PackStarts:
    """Ranges of values; those near the beginning are cut out of what was read there."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self._starts: dict[str, memoryview] = {}

    def read(self, key: str, offset: int, length: int) -> Buffer:
        """`length` bytes at `offset`. Raises Corruption if the value ends before."""
        end = offset + length
        if end > _START_BYTES:
            return read_exactly(self._store, key, offset, length)
        start = self._starts.get(key)
        if start is None:
            if len(self._starts) >= _MOST_STARTS:
                self._starts.clear()
            data = memoryview(bytearray(_START_BYTES))
            count = self._store.read_into(key, 0, data)
            start = self._starts[key] = memoryview(bytes(data[:count]))
        if end > len(start):
            return read_exactly(self._store, key, offset, length)
        return start[offset:end]
