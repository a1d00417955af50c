"""Work on all cores, in order, with a bounded number of pieces in flight."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_CHUNK_BYTES = 8 << 20
_ALIGNED = 64
Item = TypeVar("Item")
Result = TypeVar("Result")


class BufferPool:
    """Buffers that are filled again and again, so that reading large files faults no new pages."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._free: deque[bytearray] = deque()

    def take(self, length: int) -> bytearray:
        """A buffer of at least `length` bytes, its content left over."""
        if length > self._size:
            return bytearray(length)
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._size)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer back; nobody may read it any more."""
        if len(buffer) == self._size:
            self._free.append(buffer)


class Scratch(threading.local):
    """Each thread's own memory for one piece of work after the other.

    What `take` returned is valid until the thread's next `reset`. Fresh memory has to be mapped,
    cleared and faulted in page by page, which cost a sixth of a checkout.
    """

    def __init__(self) -> None:
        self._chunks: list[bytearray] = []
        self._chunk = 0
        self._used = 0

    def reset(self) -> None:
        """Begin the next piece of work: all that was taken may be handed out again."""
        self._chunk, self._used = 0, 0

    def mark(self) -> tuple[int, int]:
        """Where it stands, for `rewind`."""
        return self._chunk, self._used

    def rewind(self, mark: tuple[int, int]) -> None:
        """Take back all that was handed out since `mark`."""
        self._chunk, self._used = mark

    def take(self, length: int) -> memoryview:
        """Writable bytes, their content left over."""
        while True:
            if self._chunk == len(self._chunks):
                self._chunks.append(bytearray(max(_CHUNK_BYTES, length)))
            chunk = self._chunks[self._chunk]
            if self._used + length <= len(chunk):
                begin, self._used = self._used, -(-(self._used + length) // _ALIGNED) * _ALIGNED
                return memoryview(chunk)[begin : begin + length]
            self._chunk, self._used = self._chunk + 1, 0


class OnceEach(Generic[Result]):
    """What is made once for each key, by whoever asks first; others wait for that key alone."""

    def __init__(self) -> None:
        self._made: dict[object, Result] = {}
        self._making: dict[object, threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, key: object) -> Result | None:
        """What was made for a key, if it was."""
        return self._made.get(key)

    def get(self, key: object, make: Callable[[], Result]) -> Result:
        """What was made for a key, made now if it was not; `make` is not None, and may raise."""
        value = self._made.get(key)
        if value is None:
            with self._lock:
                making = self._making.setdefault(key, threading.Lock())
            with making:
                value = self._made.get(key)
                if value is None:
                    value = self._made[key] = make()
        return value


def core_count(configured: int = 0) -> int:
    """Threads to use: `configured`, or every core this process may run on if it is 0."""
    if configured > 0:
        return configured
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)  # macOS has no affinity


def ordered_map(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    window: int,
) -> Iterator[Result]:
    """`work` of every item, in their order; at most `window` are begun and not yet taken.

    So memory is bounded by `window` results, however long `items` is. If the consumer stops early
    or work fails, what has not started is cancelled and what runs is waited for.
    """
    flying: deque[Future[Result]] = deque()
    try:
        for item in items:
            flying.append(pool.submit(work, item))
            if len(flying) >= window:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()
        for future in flying:
            if not future.cancelled():
                future.exception()
