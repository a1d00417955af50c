"""Debian's browser, without a window, where it is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)


def command(folder: Path, *more: str) -> list[str]:
    """What starts it, keeping its things in a folder."""
    return [CHROMIUM or "", *_FLAGS, f"--user-data-dir={folder}", *more]


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """What it is started with: what it leaves when it is killed goes too.

    Its sockets lie there: the path has to be short.
    """
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        yield os.environ | {"TMPDIR": folder}


def dumped(address: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The page at an address as it is in the end (stdout), and what was said of it (stderr)."""
    with environment() as variables:
        return subprocess.run(
            command(folder, "--enable-logging=stderr", *more, "--dump-dom", address),
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,  # far beyond what a busy machine needs: a browser that hangs ends
        )
