"""Byte stores that note what is sent, or fail at a call of one's choice."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mergepipe.bytestore.protocol import ByteStore, ByteWriter, Holding
from mergepipe.errors import RemoteUnreachable
from tests.transfer.remotes import Interposed

Made = TypeVar("Made")


class Recorder(Interposed):
    """Notes the packs that begin to be sent, with their sizes. From any thread."""

    def __init__(self, inner: ByteStore) -> None:
        super().__init__(inner)
        self.sizes: dict[str, int] = {}

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        self.sizes.update({key: writer.size for writer, key in values})
        self.inner.publish(values)


class HoldingRecorder(Recorder):
    """The same for a store that can tell what it holds."""

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        assert isinstance(self.inner, Holding)
        return self.inner.holds(ids)


def recording(store: ByteStore) -> Recorder:
    """The store, with what is published noted."""
    return HoldingRecorder(store) if isinstance(store, Holding) else Recorder(store)


class Failing(Interposed):
    """Call number `at` fails: before it did anything, or, with `after`, when it has done all."""

    def __init__(self, inner: ByteStore, at: int, *, after: bool) -> None:
        super().__init__(inner)
        self._at = at
        self._after = after
        self._lock = threading.Lock()
        self.calls = 0

    @property
    def struck(self) -> bool:
        """Whether there was such a call."""
        return self.calls > self._at

    def _do(self, work: Callable[[], Made]) -> Made:
        with self._lock:
            mine = self.calls == self._at
            self.calls += 1
        if mine and not self._after:
            raise RemoteUnreachable("the line broke before the call")
        made = work()
        if mine:
            raise RemoteUnreachable("the line broke after the call")
        return made

    def get(self, key: str) -> bytes | None:
        return self._do(lambda: self.inner.get(key))

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        return self._do(lambda: self.inner.read_into(key, offset, out))

    def size(self, key: str) -> int | None:
        return self._do(lambda: self.inner.size(key))

    def values(self, prefix: str) -> dict[str, bytes]:
        return self._do(lambda: self.inner.values(prefix))

    def create(self) -> ByteWriter:
        return self._do(self.inner.create)

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        self._do(lambda: self.inner.publish(values))

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        return self._do(lambda: self.inner.compare_and_swap(key, old, new))

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        inner = self.inner
        assert isinstance(inner, Holding)
        return self._do(lambda: inner.holds(ids))

    def list(self, prefix: str) -> Iterator[str]:
        return self._do(lambda: self.inner.list(prefix))
