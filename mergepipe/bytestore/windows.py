"""Small reads cut out of larger ones: what is read next lies beside what was read last."""

import threading
from collections import OrderedDict

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore

_WINDOW_BYTES = 1 << 20
_WINDOWS = 64


class WindowStore(ForwardingStore):
    """A byte store of immutable values, whose small reads come from windows of 1 MiB, kept here."""

    def __init__(self, store: ByteStore) -> None:
        super().__init__(store)
        self._windows: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget what was read; the store is another's."""
        self._windows.clear()

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        if len(out) > _WINDOW_BYTES:
            return self._store.read_into(key, offset, out)
        done = 0
        while done < len(out):
            number, begin = divmod(offset + done, _WINDOW_BYTES)
            window = self._window(key, number)
            chunk = window[begin : begin + len(out) - done]
            if not chunk:
                break
            out[done : done + len(chunk)] = chunk
            done += len(chunk)
        return done

    def _window(self, key: str, number: int) -> bytes:
        with self._lock:
            if (key, number) in self._windows:
                self._windows.move_to_end((key, number))
                return self._windows[key, number]
        data = bytearray(_WINDOW_BYTES)
        count = self._store.read_into(key, number * _WINDOW_BYTES, memoryview(data))
        window = bytes(data[:count])
        with self._lock:
            self._windows[key, number] = window
            while len(self._windows) > _WINDOWS:
                self._windows.popitem(last=False)
        return window
