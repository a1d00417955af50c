"""MP_TRACE: what `mp` does and how long each step takes, on stderr or appended to a file."""

import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Protocol, TextIO

_OFF = ("", "0", "false", "no", "off")
_STDERR = ("1", "true", "yes", "on", "2")


class Trace(Protocol):
    """Receives one line per step."""

    def __call__(self, event: str) -> None:
        """Note that `event` happened now."""

    def error(self, error: BaseException) -> None:
        """Note an error with its traceback."""


class NoTrace:
    """MP_TRACE is not set."""

    def __call__(self, event: str) -> None:
        """Say nothing."""

    def error(self, error: BaseException) -> None:
        """Say nothing."""


class LineTrace:
    """Lines `mp[pid] seconds event`; seconds are since the process began tracing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = time.perf_counter()

    def __call__(self, event: str) -> None:
        """Write one line."""
        passed_s = time.perf_counter() - self._began
        print(f"mp[{os.getpid()}] {passed_s:9.4f}s {event}", file=self._stream, flush=True)

    def error(self, error: BaseException) -> None:
        """Write the traceback, chained errors included."""
        self(f"{type(error).__name__}: {error}")
        lines = traceback.format_exception(error)
        print("".join(lines), end="", file=self._stream, flush=True)


def open_trace(environment: Mapping[str, str]) -> Trace:
    """The trace that MP_TRACE asks for: `1` is stderr, anything else a file to append to.

    A file that cannot be opened turns into stderr: a trace never stops the work it watches.
    """
    wanted = environment.get("MP_TRACE", "").strip()
    if wanted.lower() in _OFF:
        return NoTrace()
    if wanted.lower() in _STDERR:
        return LineTrace(sys.stderr)
    try:
        # Line by line and for the life of the process, so no `with`.
        stream = open(wanted, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
    except OSError as error:
        trace = LineTrace(sys.stderr)
        trace(f"MP_TRACE: cannot append to {wanted!r}: {error.strerror}")
        return trace
    return LineTrace(stream)
