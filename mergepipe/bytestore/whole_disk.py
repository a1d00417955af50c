"""Many files made durable by one call, where that is as good as an fsync of each of them.

syncfs(2) writes out all that is unwritten on a file system, names included, and waits for it. A
thousand small files then cost one journal commit, not a thousand. Two things have to be known:
Linux tells of a failed write only since 5.8, and only to a descriptor that was opened before it
(https://man7.org/linux/man-pages/man2/syncfs.2.html); and a file system of a network, or one in
user space, may pass the call on to nobody. Where either is in doubt, each file is synced by itself.
"""

import os
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

from mergepipe.bytestore.flocks import mount_of
from mergepipe.bytestore.local_writer import raise_if_full, sync_directory
from mergepipe.closing import Closing
from mergepipe.failpoints import reached

# With fewer, to wait for what others have unwritten on that disk may cost more than it saves.
FEWEST = 32
_KINDS = frozenset(("btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"))
_TELLS_OF_ERRORS = (5, 8)


class WholeDisk(Closing):
    """The file system of a directory, opened before what is to be durable is written there."""

    def __init__(self, directory: Path, files: int) -> None:
        """`files`: how many are to be made durable."""
        self._directory = directory
        self._descriptor = -1
        if files >= FEWEST and _is_known(directory):
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def at_once(self) -> bool:
        """Whether `sync` is to be called; else each file and directory has to be synced alone."""
        return self._descriptor >= 0

    def sync(self) -> None:
        """Make durable all that was written there, and every name. Raises NoSpace, OSError."""
        reached("disk.sync")
        try:
            sync_disk(self._descriptor)
        except OSError as error:
            raise_if_full(error, str(self._directory))
            raise

    def sync_names(self, folders: Collection[Path]) -> None:
        """Make what was named, or is named no more, in directories durable. Raises as `sync`."""
        if self.at_once and len(folders) >= FEWEST:
            self.sync()
            return
        for folder in folders:
            sync_directory(folder)

    def close(self) -> None:
        """Release the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sync_disk(descriptor: int) -> None:
    """syncfs(2) of the file system that a descriptor is on. Raises OSError."""
    import ctypes  # here: most commands have no need of it

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_known(directory: Path) -> bool:
    return _kernel_tells() and mount_of(directory)[0] in _KINDS


@cache
def _kernel_tells() -> bool:
    if sys.platform != "linux":
        return False
    major, minor = [*os.uname().release.split("."), "0"][:2]
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= _TELLS_OF_ERRORS
