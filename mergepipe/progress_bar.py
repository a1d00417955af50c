"""A progress bar for whoever calls from Python, on a terminal or in a notebook.

    repo.merge(plan, progress=mergepipe.ProgressBar())

`mp` draws the same one. rich takes longer to load than most commands to run, so only who waits for
a second pays for it.
"""

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_QUIET_S = 1.0
"""Work that takes less shows nothing."""


class ProgressBar:
    """A bar on stderr, or in a notebook's cell; gone once the work is done.

    A `mergepipe.progress.Progress`. Where nobody can see it (a pipe, a log) nothing is drawn.
    `stored_bytes` is taken as the phase's total so far, as ingest gives it. Of use for one
    operation after the other; as a context manager, it is gone at the end of the block also where
    the work failed.
    """

    def __init__(self, *, until_closed: bool = False) -> None:
        """`until_closed`: it stays when all bytes have passed, for what is then still to do."""
        self._until_closed = until_closed
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._bars: Bars | None = None
        self._what = ""
        self._total = 0
        self._done = 0
        self._stored = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, what: str, total_bytes: int) -> None:
        """Begin another bar in the place of the last."""
        self.close()
        self._what, self._total = what, total_bytes
        self._done = self._stored = 0
        self._began = time.monotonic()
        # A timer draws it, so that work that reports nothing for long is seen to run all the same.
        self._timer = threading.Timer(_QUIET_S, self._show, [self._began])
        self._timer.daemon = True
        self._timer.start()

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        """Move the bar, once there is one."""
        self._done += raw_bytes
        self._stored = max(self._stored, stored_bytes)
        if self._done >= self._total > 0 and not self._until_closed:
            self.close()
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


def _bars(what: str, total_bytes: int) -> "Bars | None":
    """The bar, on the screen; None where there is no screen."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=sys.stderr)
    if not (console.is_terminal or console.is_jupyter):
        return None
    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[size]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[ratio]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    bars.add_task(what, total=max(total_bytes, 1), size="", rate="", ratio="")
    bars.start()
    return bars
