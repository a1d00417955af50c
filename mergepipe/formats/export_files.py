"""Files that are being written: made durable, and put in their places whole or not at all."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from mergepipe.bytestore.whole_disk import FEWEST, WholeDisk
from mergepipe.closing import Dropping
from mergepipe.errors import MergepipeError
from mergepipe.failpoints import reached
from mergepipe.formats.export_errors import export_errors
from mergepipe.formats.export_folders import ExportFolder
from mergepipe.ids import Buffer
from mergepipe.names import quoted

_FLUSH_BYTES = 32 << 20
_SHARES = 16  # calls that wait for the disk at once


class ExportFile(Dropping):
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
        with self._lock, export_errors(self.location):
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

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write `data` at `offset`, from any thread; each byte is written once. Raises NoSpace."""
        left = memoryview(data).cast("B")
        size = len(left)
        with export_errors(self.location):
            if self._descriptor < 0:
                with self._lock:
                    self._begin()
            while len(left):
                reached("export.write")
                count = os.pwrite(self._descriptor, left, offset)
                left = left[count:]
                offset += count
        with self._lock, export_errors(self.location):
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
        with export_errors(self.location):
            if self._flush is not None:
                # An error is reported once, to whoever syncs first: it must not get lost.
                self._flush.result()
            reached("export.sync")
            os.fsync(self._descriptor)

    def rename(self) -> None:
        """Put it in its place; `sync_name` makes that durable."""
        with export_errors(self.location):
            reached("export.rename")
            folder = self._folder.descriptor
            os.rename(self._temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder)

    def end_names(self) -> None:
        """All files of its directory are in their places: nothing stands for them any more."""
        with export_errors(self.location):
            self._folder.unmark()

    def sync_name(self) -> None:
        """Make the names in its directory durable: a rename alone may not survive a power cut."""
        with export_errors(self.location):
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
