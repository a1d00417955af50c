"""A byte store in a directory of this machine, made durable call by call.

fsync of a file makes its bytes durable; only fsync of the directory makes its *name* durable
(https://man7.org/linux/man-pages/man2/fsync.2.html), so every publication does both.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from mergepipe.bytestore.protocol import Buffer, ByteWriter
from mergepipe.errors import MergepipeError, NoSpace

_OPEN_FILES = 64
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
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        Path(folder).rmdir()


class LocalWriter:
    """A file in `tmp/` that becomes a value when it is published."""

    def __init__(self, path: Path, flusher: ThreadPoolExecutor) -> None:
        self.path = path
        self._size = 0
        self._synced = False
        self._flusher = flusher
        self._flushed = 0
        self._flush: Future[None] | None = None
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk. Raises NoSpace."""
        pending = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
        self._synced = False
        try:
            while pending:
                written = os.writev(self._descriptor, pending[:64])
                self._size += written
                while pending and written >= len(pending[0]):
                    written -= len(pending.pop(0))
                if written:
                    pending[0] = pending[0][written:]
            self._flush_behind()
        except OSError as error:
            raise_if_full(error, str(self.path))
            raise

    def sync(self) -> None:
        """Make the bytes durable and close the file."""
        if self._descriptor < 0:
            return
        try:
            self._wait_for_flush()
            os.fsync(self._descriptor)
        except OSError as error:
            raise_if_full(error, str(self.path))
            raise
        self._close()
        self._synced = True

    def abort(self) -> None:
        """Remove the file, if it was not published."""
        self._close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

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


class LocalByteStore:
    """Keys are files under `root`; unfinished values live in `root/tmp/<session>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._session: Path | None = None
        self._session_lock = -1
        self._counter = 0
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="fsync")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor and remove this process's session directory."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])
            self._end_session()
        self._flusher.shutdown()

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        descriptor = self._acquire(key)
        try:
            done = 0
            while done < len(out):
                count = os.preadv(descriptor, [out[done:]], offset + done)
                if count == 0:
                    break
                done += count
            return done
        finally:
            self._release(descriptor)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        try:
            return self._path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted."""
        root = self.root / prefix
        for folder, folders, files in os.walk(root):
            folders.sort()
            here = Path(folder).relative_to(self.root).as_posix()
            for name in sorted(files):
                yield name if here == "." else f"{here}/{name}"

    def create(self) -> LocalWriter:
        """Begin a value in this process's session directory."""
        with self._lock:
            session = self._begin_session()
            self._counter += 1
            return LocalWriter(session / f"{self._counter:06d}", self._flusher)

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Rename synced values into place, then make the names durable."""
        folders: dict[Path, None] = {}
        for writer, key in values:
            assert isinstance(writer, LocalWriter)
            if not writer.synced:
                writer.sync()
            target = self._path(key)
            folders.update(dict.fromkeys(self._make_folder(target.parent)))
            try:
                writer.path.rename(target)
            except IsADirectoryError:
                # Keys have no folders: empty ones, left by keys below this one, give way.
                _remove_empty_folders(target)
                writer.path.rename(target)
            folders[target.parent] = None
        for folder in folders:
            sync_directory(folder)

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value atomically and durably."""
        writer = self.create()
        try:
            writer.write(value)
            self.publish([(writer, key)])
        except BaseException:
            writer.abort()
            raise

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` under an flock that every writer of small values takes."""
        with self._swap_lock():
            if self.get(key) != old:
                return False
            if new is None:
                self.delete(key)
                sync_directory(self._path(key).parent) if old is not None else None
            else:
                self.put(key, new)
            return True

    def delete(self, key: str) -> None:
        """Remove the key and what it left open."""
        with self._lock:
            descriptor = self._files.pop(key, None)
            if descriptor is not None and descriptor not in self._busy:
                os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._path(key).unlink()

    def remove_dead_sessions(self) -> None:
        """Remove what killed processes left in tmp/. A live session is held by its flock."""
        tmp = self.root / "tmp"
        if not tmp.is_dir():
            return
        for session in tmp.iterdir():
            if session == self._session or not session.is_dir():
                continue
            try:
                descriptor = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for leftover in session.iterdir():
                    leftover.unlink(missing_ok=True)
                session.rmdir()
            except OSError:
                continue  # alive, or being removed by someone else
            finally:
                os.close(descriptor)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise MergepipeError(f"not a key: {key!r}")
        return self.root / key

    def _make_folder(self, folder: Path) -> Sequence[Path]:
        """Make a folder and its parents; returns the folders whose entries changed."""
        changed = []
        missing = folder
        while not missing.is_dir():
            changed.append(missing.parent)
            missing = missing.parent
        folder.mkdir(parents=True, exist_ok=True)
        return changed

    def _begin_session(self) -> Path:
        while self._session is None:
            session = self.root / "tmp" / f"{os.getpid()}-{secrets.token_hex(4)}"
            session.mkdir(parents=True)
            with contextlib.suppress(FileNotFoundError):
                held = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(held, fcntl.LOCK_EX)
                # Someone tidying up may have removed it between the mkdir and the lock.
                if session.is_dir():
                    self._session, self._session_lock = session, held
                else:
                    os.close(held)
        return self._session

    def _end_session(self) -> None:
        if self._session is not None:
            for leftover in self._session.iterdir():
                leftover.unlink(missing_ok=True)
            self._session.rmdir()
            os.close(self._session_lock)
            self._session = None

    @contextlib.contextmanager
    def _swap_lock(self) -> Iterator[None]:
        descriptor = os.open(self.root / "swap.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, key: str) -> int:
        with self._lock:
            descriptor = self._files.get(key)
            if descriptor is None:
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
                self._files[key] = descriptor
                self._evict()
            else:
                self._files.move_to_end(key)
            self._busy[descriptor] = self._busy.get(descriptor, 0) + 1
            return descriptor

    def _release(self, descriptor: int) -> None:
        with self._lock:
            self._busy[descriptor] -= 1
            if not self._busy[descriptor]:
                del self._busy[descriptor]
                if descriptor not in self._files.values():
                    os.close(descriptor)

    def _evict(self) -> None:
        while len(self._files) > _OPEN_FILES:
            _, descriptor = self._files.popitem(last=False)
            if descriptor not in self._busy:
                os.close(descriptor)
