"""What is closed, or dropped, at the end of a `with`."""

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


class Dropping(Closing):
    """Base of what is being made: leaving its context drops what was not published by then."""

    __slots__ = ()

    def close(self) -> None:
        """`abort`."""
        self.abort()

    def abort(self) -> None:
        """Drop what is not published; a second call does nothing."""
        raise NotImplementedError
