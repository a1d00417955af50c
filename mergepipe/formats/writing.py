"""Files going out of the store: whole or not at all, and never through somebody's link.

Every directory on the way is opened by name below its parent's descriptor, without following links;
a file is written under a temporary name beside its place, made durable, and renamed.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from mergepipe.bytestore.local_writer import make_durable
from mergepipe.bytestore.whole_disk import FEWEST, WholeDisk
from mergepipe.closing import Closing
from mergepipe.errors import MergepipeError, NoSpace, UnsafePath
from mergepipe.failpoints import reached
from mergepipe.formats.export_folders import ExportFolder, sweep
from mergepipe.ids import Buffer
from mergepipe.names import quoted
from mergepipe.objects.paths import check_path
from mergepipe.sizes import format_size

_FLUSH_BYTES = 32 << 20
_SHARES = 16  # calls that wait for the disk at once
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ExportDirectory(Closing):
    """A directory that files are written into, made if it is not there. For any thread.

    `root` is the user's own word, so links on the way to it are followed; below it, none is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with _errors(root):
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
    ) -> "ExportFile":
        """Begin a file of `size` bytes at `path`, with the directories it needs.

        `many`: it is one of very many that are published together, on a disk that is synced as a
        whole; each is open only while it is written. Raises UnsafePath for a path that must not be
        or a link on the way, and NoSpace.
        """
        parent, name = _split(check_path(path))
        location = self.root / path
        with _errors(location):
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
            with _errors(self.root / parent):
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
        with _errors(self.root / path):
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


class ExportFile:
    """A file that is being written. It appears at `location` when published, and not before."""

    def __init__(
        self,
        location: Path,
        name: str,
        size: int,
        folder: ExportFolder,
        mode: int,
        flusher: ThreadPoolExecutor,
        *,
        many: bool = False,
    ) -> None:
        self.location = location
        self.size = size
        self.many = many
        self._name = name
        self._folder = folder
        self._mode = mode
        self._temporary = ""
        self._descriptor = -1
        self._written = 0
        self._flusher = flusher
        self._flushed = 0
        self._flush: Future[None] | None = None
        self._lock = threading.Lock()
        self._open = True

    def begin(self) -> None:
        """Make the file, under its temporary name. Raises NoSpace."""
        with self._lock, _errors(self.location):
            self._begin()
            if self.many and not self.size:
                self._seal()

    def _begin(self) -> None:
        if not self._temporary:
            make = self._folder.new_of_many if self.many else self._folder.new_file
            self._temporary, self._descriptor = make(self._mode)

    def _seal(self) -> None:
        """Close it, whole: its bytes are made durable by a sync of the disk. Raises OSError."""
        self._check_length()
        if self._flush is not None:
            flush, self._flush = self._flush, None
            flush.result()  # what failed meanwhile, the disk may have told already
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write `data` at `offset`, from any thread; each byte is written once. Raises NoSpace."""
        left = memoryview(data).cast("B")
        size = len(left)
        with _errors(self.location):
            if self._descriptor < 0:
                with self._lock:
                    self._begin()
            while len(left):
                reached("export.write")
                count = os.pwrite(self._descriptor, left, offset)
                left = left[count:]
                offset += count
        with self._lock, _errors(self.location):
            self._written += size
            if self.many and self._written == self.size:
                self._seal()
            else:
                self._flush_behind()

    def _flush_behind(self) -> None:
        """Send what was written to the disk meanwhile, so that little is left for the end."""
        idle = self._flush is None or self._flush.done()
        if idle and self._written - self._flushed >= _FLUSH_BYTES:
            self._flushed = self._written
            try:
                self._flush = self._flusher.submit(os.fdatasync, self._descriptor)
            except RuntimeError:
                return  # the directory was closed first: publishing will wait for all of it

    def _settle(self) -> None:
        """Wait for a flush that is under way."""
        if self._flush is not None:
            self._flush.exception()
            self._flush = None

    def publish(self) -> None:
        """Make the file durable and put it in its place, whatever file or link was there.

        Raises NoSpace, and MergepipeError if not all of it was written; it is then aborted.
        """
        publish([self])

    def check_whole(self) -> None:
        """Raise MergepipeError if not all of it was written."""
        if self._written != self.size or self._descriptor >= 0:
            self._check_length()

    def _check_length(self) -> None:
        there = os.fstat(self._descriptor).st_size if self._descriptor >= 0 else self._written
        if self._written != self.size or there != self.size:
            raise MergepipeError(
                f"only {self._written} of {self.size} bytes were written"
                f" to {quoted(str(self.location))}"
            )

    def sync(self) -> None:
        """Make its bytes durable. Raises NoSpace."""
        with _errors(self.location):
            if self._flush is not None:
                # An error is reported once, to whoever syncs first: it must not get lost.
                self._flush.result()
            reached("export.sync")
            os.fsync(self._descriptor)

    def rename(self) -> None:
        """Put it in its place; `sync_name` makes that durable."""
        with _errors(self.location):
            reached("export.rename")
            folder = self._folder.descriptor
            os.rename(self._temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder)

    def end_names(self) -> None:
        """All files of its directory are in their places: nothing stands for them any more."""
        with _errors(self.location):
            self._folder.unmark()

    def sync_name(self) -> None:
        """Make the names in its directory durable: a rename alone may not survive a power cut."""
        with _errors(self.location):
            reached("export.folder")
            os.fsync(self._folder.descriptor)

    def folder(self) -> tuple[int, int]:
        """Which directory it is in, as device and inode."""
        return self._folder.identity

    def end(self) -> None:
        """Forget it, once it is published."""
        self._close()

    def abort(self) -> None:
        """Remove what was written. Does nothing after publication or a first abort."""
        if self._open:
            if self._temporary:
                with suppress(FileNotFoundError):
                    os.unlink(self._temporary, dir_fd=self._folder.descriptor)
            self._close()

    def _close(self) -> None:
        self._settle()
        self._open = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._folder.release()


def publish(
    files: Sequence[ExportFile], syncers: Executor | None = None, disk: WholeDisk | None = None
) -> None:
    """Make files durable and put them in their places, whatever file or link was there.

    With `syncers`, all are synced at once: a journal takes many in one go, which for small files
    is most of the time. With a `disk` that syncs all of them, they are one call. Raises NoSpace,
    and MergepipeError if not all of one was written; all are aborted then that are not in their
    places.
    """
    try:
        for each in files:
            each.check_whole()
        if disk is not None and disk.at_once:
            disk.sync()
        else:
            _all([each.sync for each in files], syncers)
        for each in files:
            each.rename()
        folders = list({each.folder(): each for each in files}.values())
        for each in folders:
            each.end_names()
        if disk is not None and disk.at_once and len(folders) >= FEWEST:
            disk.sync()
        else:
            _all([each.sync_name for each in folders], syncers)
    except BaseException:
        for each in files:
            each.abort()
        raise
    for each in files:
        each.end()


def _all(work: Sequence[Callable[[], None]], executor: Executor | None) -> None:
    if executor is None or len(work) == 1:
        for each in work:
            each()
        return
    # A share for each of so many: to hand over a call costs more than a small file's.
    shares = [work[first::_SHARES] for first in range(min(_SHARES, len(work)))]
    futures = [executor.submit(_each, share) for share in shares]
    wait(futures)  # all of them, before what they work on is closed
    for future in futures:
        future.result()


def _each(work: Sequence[Callable[[], None]]) -> None:
    for each in work:
        each()


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


@contextmanager
def _errors(location: Path) -> Iterator[None]:
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
