"""Directories that files are being written into, and what killed exports left in them.

A file is written beside its place, under a temporary name that only exports use; whoever holds its
lock is alive.
"""

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_UNFINISHED = re.compile(r"(\.mp-export-[0-9a-f]{16})(?:-[0-9]+)?")
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # O_EXCL follows no link either


def is_unfinished_export(name: str) -> bool:
    """Whether a file name is one that only a killed export leaves behind."""
    return _UNFINISHED.fullmatch(name) is not None


class ExportFolder:
    """A directory that files are being written into, open for as long as one of them is.

    Temporary names of files that are closed before they are published begin with that of a file of
    its own, which is locked: so nobody takes them for what a killed process left.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._holders = 1
        self._lock = threading.Lock()
        self._mark: tuple[str, int] | None = None
        self._count = 0
        status = os.fstat(descriptor)
        self.identity = status.st_dev, status.st_ino

    def hold(self) -> bool:
        """Keep it open for one more; False if it was closed."""
        with self._lock:
            if self._holders:
                self._holders += 1
            return self._holders > 0

    def release(self) -> None:
        """It is no longer needed by one of those who hold it."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            self._unmark()
            os.close(self.descriptor)

    def new_file(self, mode: int) -> tuple[str, int]:
        """A new file under a temporary name, locked for as long as it is open."""
        return new_file_in(self.descriptor, mode)

    def new_of_many(self, mode: int) -> tuple[str, int]:
        """A new file under a temporary name, which is ours for as long as the directory is held."""
        with self._lock:
            if self._mark is None:
                self._mark = new_file_in(self.descriptor, 0o666)
            self._count += 1
            name = f"{self._mark[0]}-{self._count}"
        return name, os.open(name, _NEW_FILE, mode, dir_fd=self.descriptor)

    def unmark(self) -> None:
        """All files of this directory have their names: the one that stood for them goes."""
        with self._lock:
            self._unmark()

    def _unmark(self) -> None:
        if self._mark is not None:
            (name, descriptor), self._mark = self._mark, None
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.descriptor)
            os.close(descriptor)


def new_file_in(directory: int, mode: int) -> tuple[str, int]:
    """A new file in `directory`, locked for as long as it is open; the kernel applies the umask."""
    while True:
        name = f".mp-export-{os.urandom(8).hex()}"
        descriptor = os.open(name, _NEW_FILE, mode, dir_fd=directory)
        # A file system without locks: nobody can sweep there either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)  # swept between its creation and its lock


def sweep(directory: int) -> None:
    """Remove what killed exports left; files still being written are locked by their writers.

    Of very many, one that is locked stands for all whose names begin with its own.
    """
    left: dict[str, list[str]] = {}
    for name in os.listdir(directory):
        if match := _UNFINISHED.fullmatch(name):
            left.setdefault(match[1], []).append(name)
    for mark, names in left.items():
        with suppress(OSError), _dead(mark, directory):  # it is in use, or no file of ours
            # The mark last: without it, what is left would be nobody's.
            for name in sorted(names, reverse=True):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)


@contextmanager
def _dead(mark: str, directory: int) -> Iterator[None]:
    """While we hold the lock that a killed export held; it may be gone. Raises OSError."""
    try:
        descriptor = os.open(
            mark, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
