"""Directories that are built under a name of their own, and renamed when they are whole.

Who builds one holds a lock on it. A killed process holds none, so the next that builds the same
takes what it left, or takes it away: a clone of gigabytes is not to lie there, hidden, for ever.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from mergepipe.bytestore.untrusted import status_of

_RANDOM = re.compile(r"[0-9a-f]{16}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unfinished(Struct):
    """A directory in the making. `kept`: it stays when its block ends, for the next to take."""

    path: Path
    kept: bool = False


@contextlib.contextmanager
def building(parent: Path, prefix: str, *, swept: bool = True) -> Iterator[Unfinished]:
    """A new directory `parent/prefix<16 hex digits>` for the time of the block.

    What is still there under that name when the block ends, however it does, is removed, unless it
    is to be `kept`. So are those of processes that are gone, if it is `swept` before.
    """
    if swept:
        sweep(parent, prefix)
    path, lock = _make(parent, prefix)
    unfinished = Unfinished(path)
    try:
        yield unfinished
    finally:
        if not unfinished.kept:
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep(parent: Path, prefix: str, take: Callable[[Path], None] = lambda left: None) -> None:
    """Remove directories that nobody builds any more, as far as this user may.

    `take` may use what is in one before it goes.
    """
    for path in _directories(parent, prefix):
        with contextlib.suppress(OSError):  # a file, in use, another user's
            _remove_unused(path, take)


def wait_for_others(parent: Path, prefix: str) -> bool:
    """Return once nobody builds there; whether anybody did."""
    waited = False
    for path in _directories(parent, prefix):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, _DIRECTORY)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        waited = True
                        fcntl.flock(descriptor, fcntl.LOCK_EX)
            finally:
                os.close(descriptor)
    return waited


def _directories(parent: Path, prefix: str) -> list[Path]:
    try:
        paths = list(parent.iterdir())
    except OSError:
        return []
    return [
        path
        for path in paths
        if path.name.startswith(prefix) and _RANDOM.fullmatch(path.name, len(prefix))
    ]


def _remove_unused(path: Path, take: Callable[[Path], None]) -> None:
    descriptor = os.open(path, _DIRECTORY)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                take(path)
            finally:
                shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new directory, and the descriptor that holds its lock."""
    while True:
        path = parent / f"{prefix}{os.urandom(8).hex()}"
        path.mkdir()
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            continue  # another process swept it, as it had no lock yet
        # A file system without locks has no sweep either: nobody gets a lock to remove anything.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        status = status_of(path)
        if status is not None and status.st_ino == os.fstat(descriptor).st_ino:
            return path, descriptor
        os.close(descriptor)  # it was swept before it was locked
