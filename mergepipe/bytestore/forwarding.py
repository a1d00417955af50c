"""A byte store in front of another, for those that change one thing about it."""

from collections.abc import Iterator, Sequence

from mergepipe.bytestore.protocol import Buffer, ByteStore, ByteWriter
from mergepipe.closing import Closing


class ForwardingStore(Closing):
    """Everything as the store below, which stays its owner's to close."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store

    def close(self) -> None:
        """Nothing: the store below is another's."""

    def get(self, key: str) -> bytes | None:
        """As the store below."""
        return self._store.get(key)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """As the store below."""
        return self._store.read_into(key, offset, out)

    def size(self, key: str) -> int | None:
        """As the store below."""
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[str]:
        """As the store below."""
        return self._store.list(prefix)

    def values(self, prefix: str) -> dict[str, bytes]:
        """As the store below."""
        return self._store.values(prefix)

    def create(self) -> ByteWriter:
        """As the store below."""
        return self._store.create()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """As the store below."""
        self._store.publish(values)

    def put(self, key: str, value: Buffer) -> None:
        """As the store below."""
        self._store.put(key, value)

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """As the store below."""
        return self._store.compare_and_swap(key, old, new)

    def delete(self, key: str) -> None:
        """As the store below."""
        self._store.delete(key)
