"""Compare-and-swaps by their write id: one that is asked for again is looked up, not done again.

A store that remembers ids itself (`WriteAware`: a repository, in its reflogs) is asked under the
id. For others this process remembers; once it has been restarted, a swap that is asked for again
and finds its new value in place counts as done.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from mergepipe.bytestore.protocol import ByteStore, SwappingTogether, as_write_aware
from mergepipe.bytestore.wire import WRITE_ID_BYTES, SwapRequest
from mergepipe.errors import RemoteRefused

_REMEMBERED = 4096


class Swaps:
    """The swaps of one store that are under way or were answered not long ago."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[bytes, Future[bool]]] = OrderedDict()

    def swap(self, request: SwapRequest) -> bool:
        """Whether the swap happened, now or before. Raises RemoteRefused for an id used twice."""
        if len(request.write) != WRITE_ID_BYTES:
            raise RemoteRefused(f"a write id has {WRITE_ID_BYTES} bytes")
        asked = repr((request.key, request.old, request.new)).encode()
        with self._lock:
            before, future = self._known.get(request.write, (asked, None))
            if before != asked:
                raise RemoteRefused("this write id was used for another write")
            mine = future is None
            if future is None:
                future = Future()
                self._known[request.write] = asked, future
                self._forget_oldest()
        if not mine:
            return future.result()
        try:
            swapped = self._swap(request)
        except BaseException as error:
            with self._lock:
                self._known.pop(request.write, None)  # it may be tried again
            future.set_exception(error)
            raise
        future.set_result(swapped)
        return swapped

    def _swap(self, request: SwapRequest) -> bool:
        key, new = request.key, request.new
        aware = as_write_aware(self._store)
        if aware is not None:
            return aware.swap_with_id(key, request.old, new, request.write)
        if self._store.compare_and_swap(key, request.old, new):
            return True
        return request.again and self._store.get(key) == new

    def swap_together(self, requests: Sequence[SwapRequest], near: Sequence[str]) -> bool:
        """Whether all of them happened, now or before; where not, none did now."""
        if isinstance(self._store, SwappingTogether):
            writes = [request.write for request in requests]
            if any(len(write) != WRITE_ID_BYTES for write in writes):
                raise RemoteRefused(f"a write id has {WRITE_ID_BYTES} bytes")
            swaps = [(request.key, request.old, request.new) for request in requests]
            return self._store.swap_with_ids(swaps, writes, near)
        return False

    def _forget_oldest(self) -> None:
        for write in list(self._known):
            if len(self._known) <= _REMEMBERED:
                break
            if self._known[write][1].done():
                del self._known[write]
