"""Where a run of the tests keeps its files: one directory of its own, gone when the run ends.

It is in memory where there is room: most tests write a few hundred small files, and waiting for a
disk to sync each of them proves nothing. That data is synced, and in which order, is tried by tests
that record or cut those calls (tests/faults, tests/torture), on whatever file system there is.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes that have to be free there; a run needs a few hundred megabytes at once."""
PREFIX = "mp-tests-"
_CACHES = ("torchinductor_",)  # a directory that importing transformers makes, as for its users
KEPT_S = 3600
"""How long files of failed tests, and of killed runs, stay before a later run removes them."""


def within_a_run() -> bool:
    """Whether a run that is under way started this one, whose directory then is ours."""
    return Path(os.environ.get("TMPDIR", "")).name.startswith(PREFIX)


class RunDirectory:
    """One for this run, which this process and all that it starts take for temporary files.

    Whoever sets TMPDIR chooses where it is. What earlier runs left beside it is removed.
    """

    def __init__(self) -> None:
        within = MEMORY if "TMPDIR" not in os.environ and _roomy(MEMORY) else tempfile.gettempdir()
        for path in Path(within).glob(f"{PREFIX}*"):
            _remove_unless_used(path)
        self.keep = True
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=within))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)  # until this process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.chmod(0o755)  # some tests act as other users
        os.environ["TMPDIR"] = str(self.path)
        tempfile.tempdir = None  # asked for again

    def left(self) -> list[str]:
        """Names of what nobody tidied up. pytest keeps its directories of tests that failed."""
        names = sorted(path.name for path in self.path.iterdir())
        return [name for name in names if not name.startswith(("pytest-of-", *_CACHES))]

    def within(self, left: list[str]) -> list[str]:
        """What lies in those of them that are folders: it tells whose they were."""
        folders = (self.path / name for name in left)
        return [str(path.relative_to(self.path)) for each in folders for path in each.glob("*")]

    def remove(self) -> None:
        """Remove it; with `keep`, pytest's files stay for whoever looks into a failure."""
        kept = self.keep and any(path.is_file() for path in self.path.glob("pytest-of-*/**/*"))
        for path in [self.path / name for name in self.left()] if kept else [self.path]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _remove_unless_used(directory: Path) -> None:
    try:
        if time.time() - directory.stat().st_mtime < KEPT_S:
            return
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # another user's, or gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass  # its run is under way
    finally:
        os.close(lock)


def _roomy(directory: Path) -> bool:
    if sys.platform != "linux" or not os.access(directory, os.W_OK | os.X_OK):
        return False
    status = os.statvfs(directory)
    return min(status.f_bavail * status.f_frsize, _free_memory()) >= ROOM


def _free_memory() -> int:
    """Bytes that programs can still take."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0
