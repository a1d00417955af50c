"""Two stores of the same packs: what is near is read there, the rest from afar, and not kept."""

from collections.abc import Callable, Sequence

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore, expect


class NearFirst(ForwardingStore):
    """Reads as the near store does, but for ranges that it would have to bring first.

    `is_near` says of a range (key, offset, length) whether all of it is here. Both stores stay
    their owners' to close.
    """

    def __init__(
        self, near: ByteStore, far: ByteStore, is_near: Callable[[str, int, int], bool]
    ) -> None:
        super().__init__(near)
        self._far = far
        self._is_near = is_near

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value. Raises FileNotFoundError if neither has it."""
        store = self._store if self._is_near(key, offset, len(out)) else self._far
        return store.read_into(key, offset, out)

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Have what is far brought on its way."""
        expect(self._far, [one for one in ranges if not self._is_near(*one)])
