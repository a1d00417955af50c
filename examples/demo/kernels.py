"""Compiles mp's kernels in the background, as the first commit would."""

import subprocess
from pathlib import Path
from types import TracebackType


class Kernels:
    """While open, `mp doctor --compile` runs beside; closing waits for it."""

    def __init__(self, mp: Path) -> None:
        self._mp = mp

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [self._mp, "-q", "doctor", "--compile"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        complaint = self._process.communicate()[1]
        if kind is None and self._process.returncode:
            raise SystemExit(f"compiling kernels failed: {complaint}")
