"""Files that stay open between reads: the few that were read last."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_KEPT_OPEN = 64


class OpenFiles:
    """Descriptors by key. May be used from any thread; `open_file` opens what a key stands for."""

    def __init__(self, open_file: Callable[[str], int]) -> None:
        self._open_file = open_file
        self._lock = threading.Lock()
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._readers: dict[int, int] = {}

    @contextmanager
    def reading(self, key: str) -> Iterator[int]:
        """The descriptor of a file, which is open inside. Raises what `open_file` raises."""
        descriptor = self._acquire(key)
        try:
            yield descriptor
        finally:
            self._release(descriptor)

    def forget(self, key: str) -> None:
        """Open the file anew at the next read: another one may have its key."""
        with self._lock:
            descriptor = self._descriptors.pop(key, None)
            if descriptor is not None:
                self._close_if_idle(descriptor)

    def close(self) -> None:
        """Close all that nobody reads; the last reader closes the others."""
        with self._lock:
            while self._descriptors:
                self._close_if_idle(self._descriptors.popitem()[1])

    def after_fork(self) -> None:
        """In the child: whoever reads is a thread of the parent."""
        self._lock = threading.Lock()
        self._readers.clear()

    def _acquire(self, key: str) -> int:
        with self._lock:
            descriptor = self._descriptors.get(key)
            if descriptor is None:
                descriptor = self._descriptors[key] = self._open_file(key)
                while len(self._descriptors) > _KEPT_OPEN:
                    self._close_if_idle(self._descriptors.popitem(last=False)[1])
            else:
                self._descriptors.move_to_end(key)
            self._readers[descriptor] = self._readers.get(descriptor, 0) + 1
            return descriptor

    def _release(self, descriptor: int) -> None:
        with self._lock:
            self._readers[descriptor] -= 1
            if not self._readers[descriptor]:
                del self._readers[descriptor]
                if descriptor not in self._descriptors.values():
                    os.close(descriptor)

    def _close_if_idle(self, descriptor: int) -> None:
        if descriptor not in self._readers:
            os.close(descriptor)
