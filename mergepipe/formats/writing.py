"""Directories that files go out to: whole or not at all, and never through somebody's link.

Every directory on the way is opened by name below its parent's descriptor, without following links;
a file is written under a temporary name beside its place, made durable, and renamed.
"""

import errno
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mergepipe.bytestore.local_writer import make_durable
from mergepipe.closing import Closing
from mergepipe.errors import NoSpace
from mergepipe.failpoints import reached
from mergepipe.formats.export_errors import export_errors
from mergepipe.formats.export_files import ExportFile
from mergepipe.formats.export_folders import ExportFolder, sweep
from mergepipe.names import quoted
from mergepipe.objects.paths import check_path
from mergepipe.sizes import format_size

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ExportDirectory(Closing):
    """A directory that files are written into, made if it is not there. For any thread.

    `root` is the user's own word, so links on the way to it are followed; below it, none is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with export_errors(root):
            make_durable(root.absolute())
            self._descriptor = os.open(root, _DIRECTORY)
        self._swept: set[str] = set()
        self._folders: dict[str, ExportFolder] = {}
        self._lock = threading.Lock()
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")

    def close(self) -> None:
        """Release the descriptor; files that were created from here stay usable."""
        self._flusher.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def require_space(self, size_bytes: int) -> None:
        """Raise NoSpace if the file system does not have `size_bytes` left."""
        status = os.fstatvfs(self._descriptor)
        free = status.f_bavail * status.f_frsize
        if free < size_bytes:
            raise NoSpace(
                f"{quoted(str(self.root))} needs {format_size(size_bytes)}"
                f" and has {format_size(free)} free",
                "free some space or choose another directory",
            )

    def create(
        self, path: str, size: int, executable: bool = False, *, many: bool = False
    ) -> ExportFile:
        """Begin a file of `size` bytes at `path`, with the directories it needs.

        `many`: it is one of very many that are published together, on a disk that is synced as a
        whole; each is open only while it is written. Raises UnsafePath for a path that must not be
        or a link on the way, and NoSpace.
        """
        parent, name = _split(check_path(path))
        location = self.root / path
        with export_errors(location):
            reached("export.create")
            folder = self._folder(parent, sync=not many)
        mode = 0o777 if executable else 0o666
        file = ExportFile(location, name, size, folder, mode, self._flusher, many=many)
        if not many or not size:
            try:
                file.begin()
            except BaseException:
                file.abort()
                raise
        return file

    def _folder(self, parent: str, *, sync: bool) -> ExportFolder:
        """A directory below the root, which those who write there at the same time share."""
        with self._lock:
            folder = self._folders.get(parent)
            if folder is not None and folder.hold():
                return folder
            descriptor = self._open(parent, create=True, sync=sync)
            try:
                self._sweep(parent, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._folders[parent] = folder = ExportFolder(descriptor)
            return folder

    def sweep(self, paths: Iterable[str]) -> None:
        """Remove what killed exports left in the directories of these files, where those are.

        A power cut may leave the temporary name of a file beside its place, which has it too: then
        nobody writes there again. Raises UnsafePath for a link on the way.
        """
        for parent in dict.fromkeys(_split(path)[0] for path in paths):
            with export_errors(self.root / parent):
                try:
                    directory = self._open(parent, create=False)
                except FileNotFoundError:
                    continue
                try:
                    self._sweep(parent, directory)
                finally:
                    os.close(directory)

    def _sweep(self, parent: str, directory: int) -> None:
        if parent not in self._swept:
            sweep(directory)
            self._swept.add(parent)

    def remove(self, path: str) -> None:
        """Remove a file (or the link in its place) and the directories that this leaves empty.

        Nothing happens if it is not there. Raises UnsafePath for a link on the way.
        """
        parent, name = _split(check_path(path))
        with export_errors(self.root / path):
            try:
                directory = self._open(parent, create=False)
            except FileNotFoundError:
                return
            try:
                reached("export.remove")
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
                os.fsync(directory)
            finally:
                os.close(directory)
            while parent:
                above, name = _split(parent)
                directory = self._open(above, create=False)
                try:
                    os.rmdir(name, dir_fd=directory)
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                        return
                    raise
                finally:
                    os.close(directory)
                parent = above

    def _open(self, parent: str, create: bool, sync: bool = True) -> int:
        """A descriptor of the directory `parent` below the root; never through a link.

        `sync`: whether those that are made are made durable here.
        """
        directory = os.dup(self._descriptor)
        try:
            for name in parent.split("/") if parent else ():
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=directory)
                        if sync:
                            os.fsync(directory)
                below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = below
        except BaseException:
            os.close(directory)
            raise
        return directory


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name
