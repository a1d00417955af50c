"""A byte store in memory: for tests, and for what must never touch a disk."""

import threading
from collections.abc import Iterator, Sequence

from mergepipe.bytestore.protocol import Buffer, ByteWriter
from mergepipe.closing import Closing


class MemoryWriter:
    """Bytes that become a value when they are published."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self._data)

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk."""
        for chunk in chunks:
            self._data += chunk

    def sync(self) -> None:
        """Nothing to do: memory is as durable as it gets."""

    def abort(self) -> None:
        """Forget the bytes."""
        self._data = bytearray()


class MemoryByteStore(Closing):
    """A dict with the manners of a byte store."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Nothing to release."""

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        return self._values.get(key)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        try:
            piece = self._values[key][offset : offset + len(out)]
        except KeyError:
            raise FileNotFoundError(key) from None
        out[: len(piece)] = piece
        return len(piece)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        value = self._values.get(key)
        return None if value is None else len(value)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted."""
        with self._lock:
            return iter(sorted(key for key in self._values if key.startswith(prefix)))

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key."""
        pairs = ((key, self.get(key)) for key in self.list(prefix))
        return {key: value for key, value in pairs if value is not None}

    def create(self) -> MemoryWriter:
        """Begin a value."""
        return MemoryWriter()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Make values visible."""
        with self._lock:
            for writer, key in values:
                assert isinstance(writer, MemoryWriter)
                self._values[key] = bytes(writer._data)

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a value."""
        with self._lock:
            self._values[key] = bytes(value)

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` if the value is `old`."""
        with self._lock:
            if self._values.get(key) != old:
                return False
            if new is None:
                self._values.pop(key, None)
            else:
                self._values[key] = new
            return True

    def delete(self, key: str) -> None:
        """Remove the key."""
        with self._lock:
            self._values.pop(key, None)
