"""One file on its way into a local byte store, and what makes files and names durable."""

import contextlib
import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mergepipe.bytestore.protocol import Buffer
from mergepipe.bytestore.sharing import share
from mergepipe.errors import NoSpace
from mergepipe.failpoints import reached

# A writer is pushed to disk as it grows, so that the final fsync has little left to do.
_WRITEBACK_BYTES = 32 << 20


def raise_if_full(error: OSError, what: str) -> None:
    """Turn "no space" into NoSpace naming `what`; return for every other error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise NoSpace(
            f"no space left while writing {what}",
            "free some disk space (mp gc drops what no branch or tag needs) and try again",
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: rename alone may not survive a crash."""
    reached("folder.sync")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable(folder: Path) -> list[Path]:
    """Make a folder and its parents, durably; those that were not there, outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_directory(each.parent)
    return missing


class LocalWriter:
    """A file in `tmp/` that becomes a value when it is published."""

    def __init__(
        self, path: Path, flusher: ThreadPoolExecutor, durable_bytes: int | None = None
    ) -> None:
        """`durable_bytes`: the file is there, of this length, and its writer synced it."""
        self.path = path
        self.is_aside = False
        """Whether it is to outlive this process, unpublished as it is."""
        self._size = durable_bytes or 0
        self._synced = durable_bytes is not None
        self._failure: OSError | None = None
        self._flusher = flusher
        self._flushed = 0
        self._flush: Future[None] | None = None
        reached("file.create")
        self._descriptor = -1
        if self._synced:
            return
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        share(path)

    @classmethod
    def reopened(cls, path: Path, flusher: ThreadPoolExecutor) -> "LocalWriter":
        """A file that was written before, whole, and may not be durable yet."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        writer = cls(path, flusher, durable_bytes=os.fstat(descriptor).st_size)
        writer._descriptor, writer._synced = descriptor, False
        writer.is_aside = True
        return writer

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk. Raises NoSpace."""
        self._check()
        pending = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
        self._synced = False
        try:
            while pending:
                reached("file.write")
                written = os.writev(self._descriptor, pending[:64])
                self._size += written
                while pending and written >= len(pending[0]):
                    written -= len(pending.pop(0))
                if written:
                    pending[0] = pending[0][written:]
            self._flush_behind()
        except OSError as error:
            self._failure = error
            raise_if_full(error, str(self.path))
            raise

    def sync(self) -> None:
        """Make the bytes durable and close the file."""
        self._check()
        if self._descriptor < 0:
            return
        try:
            self._wait_for_flush()
            reached("file.sync")
            os.fsync(self._descriptor)
        except OSError as error:
            self._failure = error
            raise_if_full(error, str(self.path))
            raise
        self._close()
        self._synced = True

    def seal(self) -> None:
        """Close the file, which is read from here on; its bytes need not be durable."""
        self._check()
        self._close()

    def made_durable(self) -> None:
        """Say of a sealed file that its disk was synced since."""
        self._check()
        self._synced = True

    def abort(self) -> None:
        """Remove the file, if it was not published, or set aside."""
        self._close()
        if self.is_aside:
            return
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _check(self) -> None:
        # The kernel reports a failed write-back once: a second fsync would succeed over lost pages
        # (https://wiki.postgresql.org/wiki/Fsync_Errors), so the first failure is final.
        if self._failure is not None:
            raise_if_full(self._failure, str(self.path))
            raise self._failure

    def _flush_behind(self) -> None:
        if self._size - self._flushed >= _WRITEBACK_BYTES and (
            self._flush is None or self._flush.done()
        ):
            self._wait_for_flush()
            self._flushed = self._size
            self._flush = self._flusher.submit(os.fdatasync, self._descriptor)

    def _wait_for_flush(self) -> None:
        if self._flush is not None:
            flush, self._flush = self._flush, None
            flush.result()

    def _close(self) -> None:
        if self._flush is not None:
            self._flush.exception()
            self._flush = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def synced(self) -> bool:
        """Whether every byte written is durable."""
        return self._synced
