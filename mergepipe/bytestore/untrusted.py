"""Files of a directory that somebody else may have prepared: plain ones, or nothing.

A repository may come in an archive, lie on a shared disk, or be a remote by path. A link in it
would make us read, cut or remove what lies elsewhere; a fifo would make us wait for ever; to open a
device may do something. So nothing in it is used but regular files and real directories: all of it
is looked at when a repository is opened (`check_tree`), and each use looks again, since others may
write there.
"""

import errno
import os
import shutil
import stat
from collections import deque
from itertools import islice
from pathlib import Path

from mergepipe.bytestore.sharing import share
from mergepipe.errors import UnsafeRepository
from mergepipe.names import quoted

_HINT = (
    "a repository has regular files and directories only: remove it if you know where it is from, "
    "and trust nothing else in there if you do not"
)

_MOST_LOOKED_AT = 100_000  # files when a repository is opened, in a tenth of a second


def check_tree(root: Path) -> None:
    """Raise UnsafeRepository for anything below `root` that is no regular file and no directory.

    `root` itself is as the caller was told it. What this user may not list is passed over: it
    cannot be used either. Of a hub with a million refs and packs the first many are looked at,
    folders before what is in them: each use looks again.
    """
    pending, looked_at = deque([os.fspath(root)]), 0
    while pending and looked_at < _MOST_LOOKED_AT:
        try:
            with os.scandir(pending.popleft()) as entries:
                for entry in islice(entries, _MOST_LOOKED_AT):
                    looked_at += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        _refuse_unless_gone(Path(entry.path))
        except (FileNotFoundError, PermissionError):
            continue  # others come and go: a session of another process, a folder of refs


def beneath(root: Path, key: str) -> Path:
    """The path `root/key`, every folder between them a real one if it is there.

    Raises UnsafeRepository. A regular file in a folder's place is left to whoever uses the path.
    """
    path = os.fspath(root)
    for folder in key.split("/")[:-1]:
        path = f"{path}/{folder}"
        status = status_of(path)
        if status is None:
            break
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            raise refusal(Path(path), status.st_mode)
    return root / key


def status_of(path: Path | str) -> os.stat_result | None:
    """What stands at `path`, itself and not what it links to; None if nothing does."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def plain_status(path: Path) -> os.stat_result:
    """The status of a regular file.

    Raises UnsafeRepository, FileNotFoundError, NotADirectoryError, IsADirectoryError.
    """
    return _plain(path, os.lstat(path))


def is_real_directory(path: Path) -> bool:
    """Whether there is a directory at `path`; False if there is nothing, or a regular file.

    Raises UnsafeRepository for everything else, a link to a directory too.
    """
    status = status_of(path)
    if status is None or stat.S_ISREG(status.st_mode):
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise refusal(path, status.st_mode)
    return True


def open_plain(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a regular file, or with O_CREAT make one; returns the descriptor, close-on-exec.

    Raises UnsafeRepository, IsADirectoryError and what `os.open` raises. Never waits.
    """
    status = status_of(path)
    if status is not None:
        _plain(path, status)  # before it is opened: that may do something to a device
    try:
        descriptor = os.open(
            path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # it became a link, or a fifo, meanwhile
            _refuse_unless_gone(path)
        raise
    try:
        _plain(path, os.fstat(descriptor))
        if status is None and flags & os.O_CREAT:
            share(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_to_change(path: Path, flags: int, mode: int = 0o666) -> int:
    """`open_plain` for a file that is written in place: one that has no other name.

    An archive can bring a second name (a hard link) of a file that lies outside; so can a copy made
    with `cp -l`. What this name stands for is copied first, and the other name keeps the original.
    """
    while True:
        descriptor = open_plain(path, flags, mode)
        if os.fstat(descriptor).st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        _part(path)


def _part(path: Path) -> None:
    """Put a copy of a file in its place, which leaves its other names to the original."""
    source = open_plain(path, os.O_RDONLY)
    copy = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.lock")
    try:
        status = os.fstat(source)
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(source, "rb", closefd=False) as old, os.fdopen(target, "wb") as new:
                shutil.copyfileobj(old, new)
                new.flush()
                os.fchmod(target, stat.S_IMODE(status.st_mode))
                os.fsync(target)
            copy.rename(path)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
    finally:
        os.close(source)


def read_plain(path: Path) -> bytes:
    """All of a regular file. Raises as `open_plain` does."""
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        return file.read()


def refusal(path: Path, mode: int) -> UnsafeRepository:
    """The error for what stands at `path`."""
    return UnsafeRepository(f"{quoted(str(path))} is a {kind_of(mode)}, and is not used", _HINT)


def kind_of(mode: int) -> str:
    """What a file that is no regular one is called."""
    for test, kind in (
        (stat.S_ISLNK, "link"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISREG, "file"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
    ):
        if test(mode):
            return kind
    return "device"


def _plain(path: Path, status: os.stat_result) -> os.stat_result:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, status.st_mode)
    return status


def _refuse_unless_gone(path: Path) -> None:
    status = status_of(path)
    if status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise refusal(path, status.st_mode)
