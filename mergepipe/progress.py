"""How long work reports how far it is. The CLI draws it; everything else only calls it."""

from typing import Protocol


class Progress(Protocol):
    """Receives the state of one operation. Called from one thread at a time."""

    def start(self, what: str, total_bytes: int) -> None:
        """A phase named `what` begins; `total_bytes` of raw data will pass."""

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """`raw_bytes` more have passed; they took `stored_bytes` in the store (0: not known)."""


class Silent:
    """The progress that nobody watches."""

    def start(self, what: str, total_bytes: int) -> None:
        """Say nothing."""

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """Say nothing."""


SILENT = Silent()
