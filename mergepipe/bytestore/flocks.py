"""flock, where a file system has it; where it has none that works, one error that names it."""

import errno
import fcntl
import os
from pathlib import Path

from mergepipe.errors import NoLocks
from mergepipe.names import quoted

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_MOUNTS = Path("/proc/self/mountinfo")


def lock(descriptor: int, operation: int, path: Path) -> None:
    """`fcntl.flock`. Raises NoLocks, BlockingIOError (LOCK_NB), OSError."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise no_locks(path, error) from error
        raise


def no_locks(path: Path, error: OSError) -> NoLocks:
    """The error for a file system without locks, which it names."""
    return NoLocks(
        f"{quoted(str(path))} is on {file_system(path)}, where file locks do not work "
        f"({error.strerror})",
        "reading works there; to write, clone it to a local disk, and push from there to a remote",
    )


def file_system(path: Path) -> str:
    """What a path lies on, as `nfs4 (mounted at /models)`, as far as the system tells."""
    kind, mount = mount_of(path)
    return f"{kind} (mounted at {mount})" if kind else "a file system"


def mount_of(path: Path) -> tuple[str, str]:
    """The kind of file system that a path lies on, and where it is mounted; empty if unknown."""
    place = os.path.realpath(path)
    best, kind = "", ""
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return "", ""
    for line in lines:
        fields, _, more = line.partition(" - ")
        mount = fields.split()[4].encode().decode("unicode_escape", errors="replace")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, more.split()[0]
    return kind, best
