"""Directories that a group shares: what is made in one is for the group, whatever the umask is.

A directory says so itself, by its group's right to write and the set-group-ID bit, with which new
files get its group (https://man7.org/linux/man-pages/man7/inode.7.html). So whoever makes a file in
a repository, or in a remote by path, need not know its settings.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FILE = stat.S_IRGRP | stat.S_IWGRP
_DIRECTORY = _FILE | stat.S_IXGRP | stat.S_ISGID


def is_shared(folder: Path) -> bool:
    """Whether what is made in a directory is for its group too."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def share(path: Path) -> None:
    """Give what this process just made at `path` to the group, if it shares the directory.

    Not through a link. What others made they have shared, or they did not mean to.
    """
    if is_shared(path.parent):
        _grant(path)


def make_folder(folder: Path) -> None:
    """Make a directory and its parents, as far as they are missing."""
    if folder.is_dir():
        return
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        share(each)


def share_tree(root: Path, group: int) -> None:
    """Give a directory and all in it to a group (its number), and what will be made there.

    As far as this user may: only its owner changes whose a file is.
    """
    for path in _tree(root):
        with suppress(PermissionError):
            if os.lstat(path).st_gid != group:
                os.chown(path, -1, group, follow_symlinks=False)
            _grant(path)


def unshare_tree(root: Path) -> None:
    """Let the umask of its maker decide of what is made from now on; what is there stays."""
    for path in _tree(root):
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        if path.is_dir() and mode & stat.S_ISGID:
            with suppress(PermissionError):
                path.chmod(mode & ~stat.S_ISGID)


def _tree(root: Path) -> Iterator[Path]:
    yield root
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            yield Path(folder) / name


def _grant(path: Path) -> None:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        wanted = mode | _DIRECTORY
    elif stat.S_ISREG(status.st_mode):
        wanted = mode | _FILE | (stat.S_IXGRP if mode & stat.S_IXUSR else 0)
    else:
        return
    if wanted != mode:
        with suppress(PermissionError, FileNotFoundError):
            path.chmod(wanted)
