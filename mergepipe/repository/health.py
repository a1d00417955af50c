"""What around a repository decides whether it can be worked with: room, rights, locks, clock."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from mergepipe.bytestore import flocks
from mergepipe.bytestore.elsewhere import Elsewhere, located, read_elsewhere
from mergepipe.bytestore.untrusted import open_plain
from mergepipe.errors import NoLocks
from mergepipe.names import escape_for_terminal
from mergepipe.repository import layout, leases
from mergepipe.repository.leases import Lease

_WRITTEN = (layout.PACKS, layout.REFS, layout.LOGS, layout.INDEX, layout.TMP)
_LOCKS = (layout.LOCK, layout.STORE_LOCK, layout.WORKTREE_LOCK)
_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
        *("gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
        *("virtiofs",),
    )
)
_LONGEST_COMMAND = 200


class HeldFile(Struct, frozen=True):
    """A lock file that somebody holds.

    `process` is None where they left no id (shared holders); then leases say who works.
    `command`: what that process runs, as far as this machine tells; `age_s`: since it began.
    """

    name: str
    process: int | None
    command: str = ""
    age_s: float | None = None


class Health(Struct, frozen=True):
    """`free_bytes`, `free_files` where its packs are; `unwritable`: what this user may not write.

    `elsewhere`: what is on other disks.
    `file_system`: its kind; `network`: whether it is one of a network; `locks_work`: whether flock
    does there. `working`: who works, and on which machine. `clock_ahead_s`: how far the newest file
    of the repository lies in the future of this machine's clock.
    """

    directory: Path
    free_bytes: int
    free_files: int
    unwritable: tuple[str, ...]
    locks: tuple[HeldFile, ...]
    file_system: str
    network: bool
    locks_work: bool
    working: tuple[Lease, ...]
    clock_ahead_s: float
    elsewhere: Elsewhere = field(default_factory=Elsewhere)


def examine(directory: Path) -> Health:
    """Look at a repository without waiting for anybody and without changing anything."""
    elsewhere = read_elsewhere(directory)
    packs = elsewhere.packs or directory
    places = [directory, *(located(directory, name) for name in _WRITTEN)]
    unwritable = tuple(
        str(place.relative_to(directory.parent) if place.is_relative_to(directory) else place)
        for place in places
        if place.exists() and not os.access(place, os.W_OK | os.X_OK)
    )
    held = (_holder(directory / name) for name in _LOCKS)
    now_s = time.time()
    kind = flocks.mount_of(directory)[0]
    return Health(
        directory=directory,
        free_bytes=shutil.disk_usage(packs).free,
        free_files=os.statvfs(packs).f_favail,
        unwritable=unwritable,
        locks=tuple(each for each in held if each is not None),
        file_system=kind,
        network=kind in _NETWORK,
        locks_work=_locks_work(directory),
        working=tuple(leases.running(directory, now_s)),
        clock_ahead_s=max([0.0, *(at - now_s for at in _times(directory))]),
        elsewhere=elsewhere,
    )


def _holder(path: Path) -> HeldFile | None:
    """Who holds a lock file; None if nobody does, or if it cannot be read."""
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # For an instant, and never in the way of a shared holder's neighbours: who wants it
        # exclusively tries again within a millisecond.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        if not text.isdigit():
            return HeldFile(path.name, None)
        process = int(text)
        return HeldFile(path.name, process, _command(process), _age_s(process))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _command(process: int) -> str:
    """What a process of this machine runs; empty where the system does not say."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    return escape_for_terminal(text[:_LONGEST_COMMAND])


def _age_s(process: int) -> float | None:
    """For how long a process of this machine has been running."""
    with suppress(OSError):
        return max(0.0, time.time() - Path(f"/proc/{process}").stat().st_mtime)
    return None


def _locks_work(directory: Path) -> bool:
    """Whether flock works where a repository is."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True  # which is another trouble
    try:
        flocks.lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, directory)
    except NoLocks:
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return True


def _times(directory: Path) -> Iterator[float]:
    """When packs and logs were written."""
    for name in (layout.PACKS, layout.LOGS, layout.REFS):
        with suppress(OSError), os.scandir(located(directory, name)) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_mtime
