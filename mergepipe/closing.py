"""What is closed at the end of a `with`."""

from types import TracebackType
from typing import Self


class Closing:
    """Base of what holds files or connections: leaving its context closes it."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what is held; a second call does nothing."""
        raise NotImplementedError
