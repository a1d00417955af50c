"""Reading ahead of a store that is far away: what was announced is on its way when it is asked for.

For work that reads each range once, and keeps nothing: exactly what was announced is asked for, in
as many requests as there are ranges, side by side. Neighbours are joined by who announces them.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore

_AT_ONCE = 16
# Of what is announced and not read yet; what goes beyond it is read when it is asked for.
_MOST_BYTES = 128 << 20

_Range: TypeAlias = tuple[str, int, int]


class AheadStore(ForwardingStore):
    """A far store that is told what will be read. Closes it. May be used from any thread."""

    def __init__(self, store: ByteStore) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._coming: dict[_Range, Future[memoryview]] = {}
        self._coming_bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self.requests = 0
        """Ranges that were asked for so far."""

    def close(self) -> None:
        """Give up what is on its way, and close the store."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._coming.clear()
            self._coming_bytes = 0
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        self._store.close()

    def expect(self, ranges: Sequence[_Range]) -> None:
        """Ask for ranges (key, offset, length) now; each is kept until it is read, once."""
        with self._lock:
            for wanted in ranges:
                length = wanted[2]
                if wanted in self._coming or self._coming_bytes + length > _MOST_BYTES:
                    continue
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ahead")
                self._coming[wanted] = self._pool.submit(self._fetch, *wanted)
                self._coming_bytes += length

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out`, from what was announced as just this range, or else by asking now."""
        with self._lock:
            future = self._coming.pop((key, offset, len(out)), None)
            if future is not None:
                self._coming_bytes -= len(out)
            else:
                self.requests += 1
        if future is None:
            return self._store.read_into(key, offset, out)
        data = future.result()
        out[: len(data)] = data
        return len(data)

    def _fetch(self, key: str, offset: int, length: int) -> memoryview:
        with self._lock:
            self.requests += 1
        data = memoryview(bytearray(length))
        return data[: self._store.read_into(key, offset, data)]
