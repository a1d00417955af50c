"""Leases: running work says who it is and which commits it reads; gc keeps those meanwhile.

A lease is a file in `leases/`, held by flock while its process lives and void after its `until`, so
that neither a kill nor a hung process holds anything for ever. docs/format.md, "Locks".
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from mergepipe.bytestore import flocks
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import beneath, is_real_directory, open_plain, open_to_change
from mergepipe.bytestore.whole_calls import write_all
from mergepipe.closing import Closing
from mergepipe.errors import NoLocks
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.names import escape_for_terminal
from mergepipe.repository.durations import WEEK_S, format_duration

FOLDER = "leases"
LONGEST_S = WEEK_S
_LARGEST_BYTES = 1 << 20
_CANNOT = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who works: process, machine, command; times in Unix seconds; `needs`: commits, as hex."""

    version: int
    pid: int
    host: str
    command: str
    since: int
    until: int
    needs: tuple[str, ...] = ()

    def told(self, now_s: float) -> str:
        """Who it is, in a few words."""
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        since = format_duration(max(0, now_s - self.since))
        return escape_for_terminal(f"{self.command} (process {self.pid}{where}, since {since})")


class HeldLease(Closing):
    """A lease of this process until `close`, or the end of a `with` block."""

    def __init__(self, path: Path | None = None, descriptor: int = -1) -> None:
        self._path = path
        self._descriptor = descriptor
        self._process = os.getpid()

    def close(self) -> None:
        """The work is done. Does nothing the second time, nor in a forked child."""
        path, self._path = self._path, None
        if path is None or self._process != os.getpid():
            return
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(self._descriptor)


def take(directory: Path, command: str, now_s: float, needs: Sequence[ObjectId] = ()) -> HeldLease:
    """Say in the repository at `directory` that `command` runs, and reads `needs`.

    Where nothing can be written it is not said: who may not write reads all the same, and a full
    disk is no reason not to work.
    """
    lease = Lease(
        version=1,
        pid=os.getpid(),
        host=socket.gethostname(),
        command=command,
        since=int(now_s),
        until=int(now_s) + LONGEST_S,
        needs=tuple(identity.hex() for identity in needs),
    )
    path = beneath(directory, f"{FOLDER}/{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = -1
    try:
        make_folder(path.parent)
        remove_dead(directory, now_s)
        descriptor = open_to_change(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with contextlib.suppress(NoLocks):
            flocks.lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
        write_all(descriptor, msgspec.json.encode(lease))
    except BlockingIOError:  # gc looks at it this very moment: it is ours all the same
        write_all(descriptor, msgspec.json.encode(lease))
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
        if error.errno not in _CANNOT:
            raise
        return HeldLease()
    return HeldLease(path, descriptor)


class _Found(Struct, frozen=True):
    path: Path
    lease: Lease | None
    alive: bool


def running(directory: Path, now_s: float) -> list[Lease]:
    """The leases of work that runs, oldest first."""
    leases = (each.lease for each in _found(directory, now_s) if each.alive)
    return sorted((each for each in leases if each is not None), key=lambda each: each.since)


def needed(directory: Path, now_s: float) -> list[ObjectId]:
    """The commits that running work reads."""
    ids = (text for lease in running(directory, now_s) for text in lease.needs)
    return [ObjectId(raw) for raw in map(bytes.fromhex, ids) if len(raw) == ID_BYTES]


def remove_dead(directory: Path, now_s: float) -> None:
    """Remove what killed processes left."""
    for each in _found(directory, now_s):
        if not each.alive:
            with contextlib.suppress(OSError):
                each.path.unlink()


def _found(directory: Path, now_s: float) -> Iterator[_Found]:
    folder = directory / FOLDER
    if not is_real_directory(folder):
        return
    for path in sorted(folder.iterdir()):
        try:
            with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
                held = _is_held(file.fileno(), path)
                data = file.read(_LARGEST_BYTES)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            lease = msgspec.json.decode(data, type=Lease)
            bytes.fromhex("".join(lease.needs))
        except (msgspec.DecodeError, ValueError):
            # Written this moment, if somebody holds it; else the trace of a crash.
            yield _Found(path, None, held)
            continue
        yield _Found(path, lease, held and lease.until > now_s)


def _is_held(descriptor: int, path: Path) -> bool:
    try:
        flocks.lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
    except (BlockingIOError, NoLocks):
        return True
    return False
