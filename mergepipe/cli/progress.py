"""How `mp` shows long work: a bar for whoever watches, lines of the trace for all others."""

from collections.abc import Callable
from typing import Protocol

from mergepipe.progress import Progress
from mergepipe.progress_bar import ProgressBar


class ClosableProgress(Progress, Protocol):
    """A progress whose drawing can be taken off the screen."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class TracedProgress:
    """Phases as lines of the trace; also the progress of those who see no bar."""

    def __init__(
        self, trace: Callable[[str], None], prepare: Callable[[], None] | None = None
    ) -> None:
        """`prepare` is called before the first phase that has something to do."""
        self._trace = trace
        self._prepare = prepare

    def start(self, what: str, total_bytes: int) -> None:
        """Note the phase."""
        if total_bytes and self._prepare is not None:
            prepare, self._prepare = self._prepare, None
            prepare()
        self._trace(f"begin {what}: {total_bytes} bytes")

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """Say nothing: there may be thousands."""

    def close(self) -> None:
        """Nothing to take away."""


class TerminalProgress(TracedProgress):
    """The same, with a bar on stderr."""

    def __init__(
        self, trace: Callable[[str], None], prepare: Callable[[], None] | None = None
    ) -> None:
        super().__init__(trace, prepare)
        self._bar = ProgressBar(until_closed=True)

    def start(self, what: str, total_bytes: int) -> None:
        """Begin another bar in the place of the last."""
        self._bar.close()
        super().start(what, total_bytes)
        self._bar.start(what, total_bytes)

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """Move the bar, once there is one."""
        self._bar.advance(raw_bytes, stored_bytes)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
