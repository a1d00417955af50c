"""The progress bar of long work: on a terminal, after a second, with rate and stored ratio."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mergepipe.progress import Progress
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_QUIET_S = 1.0
"""Work that takes less shows nothing."""


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
    """A bar on stderr. `stored_bytes` is taken as the phase's total so far, as ingest gives it.

    A timer draws it, so that work that reports nothing for long is seen to run all the same.
    """

    def __init__(
        self, trace: Callable[[str], None], prepare: Callable[[], None] | None = None
    ) -> None:
        super().__init__(trace, prepare)
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._bars: Bars | None = None
        self._what = ""
        self._total = 0
        self._done = 0
        self._stored = 0
        self._began = time.monotonic()

    def start(self, what: str, total_bytes: int) -> None:
        """Begin another bar in the place of the last."""
        self.close()
        super().start(what, total_bytes)
        self._what, self._total = what, total_bytes
        self._done = self._stored = 0
        self._began = time.monotonic()
        self._timer = threading.Timer(_QUIET_S, self._show, [self._began])
        self._timer.daemon = True
        self._timer.start()

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """Move the bar, once there is one."""
        self._done += raw_bytes
        self._stored = max(self._stored, stored_bytes)
        if self._bars is None:
            return
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        self._bars.update(
            self._bars.task_ids[0],
            completed=self._done,
            size=f"{format_size(self._done)} of {format_size(self._total)}",
            rate=f"{format_size(self._done / elapsed_s)}/s",
            ratio=f"stored {self._stored / self._done:.0%}" if self._stored else "",
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._began = time.monotonic()  # a timer that is just going off is too late now
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    def _show(self, began: float) -> None:
        with self._lock:
            if began == self._began and self._bars is None:
                self._bars = _bars(self._what, self._total)


def _bars(what: str, total_bytes: int) -> "Bars":
    # rich takes longer to load than most commands to run, so only who waits a second pays for it.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[size]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[ratio]}"),
        TimeRemainingColumn(compact=True),
        console=Console(file=sys.stderr),
        transient=True,
    )
    bars.add_task(what, total=max(total_bytes, 1), size="", rate="", ratio="")
    bars.start()
    return bars
