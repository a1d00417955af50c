"""Advisory locks between processes: flock on a file, so that a killed holder leaves none behind.

The lock files of a repository and what each protects are in docs/format.md, "Locks".
"""

import contextlib
import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from mergepipe.bytestore import flocks
from mergepipe.bytestore.untrusted import open_plain, open_to_change, status_of
from mergepipe.bytestore.whole_calls import write_all_at
from mergepipe.errors import Locked, NoLocks

_FIRST_WAIT_S = 0.001
_LONGEST_WAIT_S = 0.05
_NO_WRITE_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)


class HeldLock:
    """A lock this process holds until `release`, the end of a `with` block, or its death."""

    def __init__(self, path: Path, descriptor: int, shared: bool) -> None:
        self.path = path
        self.shared = shared
        self._descriptor: int | None = descriptor
        _held.add(self)

    @property
    def held(self) -> bool:
        """Whether it is still held by this process. False in a child forked meanwhile."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let others have it. Does nothing the second time."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if not self.shared:
                os.ftruncate(descriptor, 0)
        finally:
            # Explicitly, not only by closing: a forked child that has not yet run its own
            # clean-up shares this file description and would keep the lock alive.
            with contextlib.suppress(NoLocks):
                flocks.lock(descriptor, fcntl.LOCK_UN, self.path)
            os.close(descriptor)

    def _forget(self) -> None:
        """In a forked child: drop the shared description without unlocking the parent's lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


_held: weakref.WeakSet[HeldLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


def acquire(
    path: Path, *, shared: bool = False, timeout_s: float, reading: bool = False
) -> HeldLock:
    """Lock the file `path`, which is made if need be, waiting at most `timeout_s` seconds.

    Who is only `reading` goes on without where the file system has no locks.
    Exclusive holders write their process id into the file for the message others get.
    Raises Locked, NoLocks. Not re-entrant: a second `acquire` in the holder waits like any other.
    """
    deadline = time.monotonic() + timeout_s
    wait_s = _FIRST_WAIT_S
    while True:
        descriptor = _try(path, shared, reading)
        if descriptor is not None:
            return HeldLock(path, descriptor, shared)
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise _locked(path, timeout_s)
        time.sleep(min(wait_s, remaining_s))
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _sign(descriptor: int) -> None:
    """Write our process id for others' messages; on a full disk the lock holds without it."""
    try:
        write_all_at(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _try(path: Path, shared: bool, reading: bool) -> int | None:
    """A descriptor that holds the lock, or None if somebody else's does."""
    try:
        descriptor = open_to_change(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if not shared or error.errno not in _NO_WRITE_ACCESS:
            raise
        return _try_reading(path)
    try:
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        flocks.lock(descriptor, operation | fcntl.LOCK_NB, path)
        if not _is(path, descriptor):
            # The file was removed between open and flock: what we hold protects nothing.
            os.close(descriptor)
            return None
        # Shared holders clear it: whatever stands there is from a holder that was killed.
        os.ftruncate(descriptor, 0)
        if not shared:
            _sign(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except NoLocks:
        if reading:
            return descriptor
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _try_reading(path: Path) -> int | None:
    """A shared lock for who may not write there, as on a read-only file system."""
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except FileNotFoundError:
        # No file, and we may not make one: whoever writes there has yet to begin. What is locked
        # instead keeps nobody out.
        path = path.parent
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flocks.lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
        if _is(path, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except NoLocks:
        return descriptor  # who may not write there is reading
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is(path: Path, descriptor: int) -> bool:
    status = status_of(path)
    return status is not None and os.path.samestat(status, os.fstat(descriptor))


def _locked(path: Path, timeout_s: float) -> Locked:
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            text = file.read(32).strip()
    except OSError:
        text = b""
    holder = f"process {int(text)}" if text.isdigit() else "another process"
    return Locked(
        f"{holder} holds {path} (waited {timeout_s:g} s)",
        "try again when it is done; core.lock_timeout or MP_LOCK_TIMEOUT says how long to wait",
    )
