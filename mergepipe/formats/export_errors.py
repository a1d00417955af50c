"""What the system's errors mean to who has files written, and what to do about them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from mergepipe.errors import MergepipeError, NoSpace, UnsafePath
from mergepipe.names import quoted


@contextmanager
def export_errors(location: Path) -> Iterator[None]:
    """Raise NoSpace, UnsafePath or MergepipeError, naming `location`, for any OSError inside."""
    try:
        yield
    except OSError as error:
        _fail(location, error)


def _fail(location: Path, error: OSError) -> NoReturn:
    shown = quoted(str(location))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise NoSpace(
            f"no space left to write {shown}", "free some space or choose another directory"
        ) from error
    # O_NOFOLLOW with O_DIRECTORY says ENOTDIR of a link on Linux, ELOOP on macOS.
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        raise UnsafePath(
            f"cannot write {shown}: a link or a file is where a directory has to be",
            "remove it or choose another directory",
        ) from error
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EPERM) and location.is_dir():
        raise UnsafePath(f"cannot write {shown}: a directory is there", "move it away") from error
    raise MergepipeError(f"cannot write {shown}: {error.strerror}") from error
