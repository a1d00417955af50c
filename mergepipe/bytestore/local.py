"""A byte store in a directory of this machine, made durable call by call.

fsync of a file makes its bytes durable; only fsync of the directory makes its *name* durable
(https://man7.org/linux/man-pages/man2/fsync.2.html), so every publication does both.
"""

import contextlib
import fcntl
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergepipe.bytestore import flocks
from mergepipe.bytestore.local_writer import LocalWriter, raise_if_full, sync_directory
from mergepipe.bytestore.protocol import Buffer, ByteWriter
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import (
    beneath,
    is_real_directory,
    open_plain,
    plain_status,
    read_plain,
)
from mergepipe.bytestore.whole_calls import fill_at
from mergepipe.closing import Closing
from mergepipe.errors import MergepipeError
from mergepipe.failpoints import reached
from mergepipe.forks import unwatch, watch

_OPEN_FILES = 64
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SESSIONS = "tmp"
_SESSION = re.compile(r"[0-9]+-[0-9a-z]+")

__all__ = ["LocalByteStore", "LocalWriter", "raise_if_full", "sync_directory"]


class LocalByteStore(Closing):
    """Keys are files under `root`; unfinished values live in `root/tmp/<session>/`.

    What is no plain file, or lies behind a link, raises UnsafeRepository (`untrusted.py`).
    """

    def __init__(self, root: Path, sessions: str = "") -> None:
        """`sessions` ends the names of its sessions: what one kind leaves, no other removes."""
        self.root = root
        self._kind = sessions
        self._lock = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._session: Path | None = None
        self._session_lock = -1
        self._counter = 0
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        watch(self)

    def close(self) -> None:
        """Close every descriptor and remove this process's session directory."""
        with self._lock:
            while self._files:
                descriptor = self._files.popitem()[1]
                if descriptor not in self._busy:  # else its reader closes it
                    os.close(descriptor)
            self._end_session()
        self._flusher.shutdown()
        unwatch(self)

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        try:
            return read_plain(self.path(key))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        descriptor = self._acquire(key)
        try:
            return fill_at(descriptor, out, offset)
        finally:
            self._release(descriptor)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        try:
            return plain_status(self.path(key)).st_size
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def status(self, key: str) -> os.stat_result | None:
        """What the system says of the value's file; None if there is none."""
        try:
            return plain_status(self.path(key))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def modified(self, key: str) -> float | None:
        """When the value was written, in Unix seconds; None if there is none."""
        status = self.status(key)
        return None if status is None else status.st_mtime

    def date(self, key: str, modified_s: float) -> None:
        """Say when a value was written: a copy is no younger than what it was made of."""
        with contextlib.suppress(OSError):
            os.utime(self.path(key), (modified_s, modified_s), follow_symlinks=False)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted. Raises OSError if a folder cannot be listed.

        An error must not look like an empty folder: an index would drop packs that are there.
        """
        pending = [prefix]
        while pending:
            key = pending.pop()
            if key and not key.endswith("/"):
                yield key
                continue
            try:
                if key and not is_real_directory(beneath(self.root, key.rstrip("/"))):
                    continue
                with os.scandir(self.root / key) as found:
                    entries = [
                        f"{key}{entry.name}/"
                        if entry.is_dir(follow_symlinks=False)
                        else f"{key}{entry.name}"
                        for entry in found
                    ]
            except (FileNotFoundError, NotADirectoryError):
                continue
            # "a.b" comes before "a/b": a folder is sorted with its slash, as its keys are.
            pending += sorted(entries, reverse=True)

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key."""
        pairs = ((key, self.get(key)) for key in self.list(prefix))
        return {key: value for key, value in pairs if value is not None}

    def create(self) -> LocalWriter:
        """Begin a value in this process's session directory."""
        with self._lock:
            try:
                session = self._begin_session()
                self._counter += 1
                return LocalWriter(session / f"{self._counter:06d}", self._flusher)
            except OSError as error:
                raise_if_full(error, str(self.root))
                raise

    @property
    def session(self) -> str:
        """The key of this process's session directory, which is there until `close`."""
        with self._lock:
            return f"{_SESSIONS}/{self._begin_session().name}"

    def key_of(self, writer: LocalWriter) -> str:
        """Where an unpublished value is, for `adopt` of another process."""
        return writer.path.relative_to(self.root).as_posix()

    def adopt(self, key: str) -> LocalWriter:
        """Take an unpublished, synced value of another process into this one's session.

        Raises FileNotFoundError if it is gone, as when that process's session was tidied up.
        """
        with self._lock:
            session = self._begin_session()
            self._counter += 1
            path = session / f"{self._counter:06d}"
        theirs = self.path(key)
        size = plain_status(theirs).st_size
        theirs.rename(path)
        return LocalWriter(path, self._flusher, durable_bytes=size)

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Rename synced values into place, then make the names durable."""
        folders: dict[Path, None] = {}
        for writer, key in values:
            assert isinstance(writer, LocalWriter)
            if not writer.synced:
                writer.sync()
            target = self.path(key)
            try:
                folders.update(dict.fromkeys(self._make_folder(target.parent)))
                reached("file.rename")
                try:
                    writer.path.rename(target)
                except IsADirectoryError:
                    # Keys have no folders: empty ones, left by keys below this one, give way.
                    _remove_empty_folders(target)
                    writer.path.rename(target)
            except OSError as error:
                raise_if_full(error, str(target))
                raise
            self._forget(key)  # an open descriptor would go on reading what was there before
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
            if new is not None:
                self.put(key, new)
            elif old is not None:
                self.delete(key)
                sync_directory(self.path(key).parent)
            return True

    def path(self, key: str) -> Path:
        """The file that holds the value of a key, or would. Raises MergepipeError for no key."""
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise MergepipeError(f"not a key: {key!r}")
        return beneath(self.root, key)

    def move(self, key: str, target: str) -> None:
        """Give a value another key; the caller makes that durable. Raises FileNotFoundError."""
        reached("file.move")
        self.path(key).rename(self.path(target))
        self._forget(key)  # what was open under the old name
        self._forget(target)

    def delete(self, key: str) -> None:
        """Remove the key and what it left open."""
        self._forget(key)
        reached("file.delete")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.path(key).unlink()

    def remove_dead_sessions(self, rescue: Callable[[str], None] = lambda key: None) -> None:
        """Remove what killed processes left in tmp/. A live session is held by its flock.

        `rescue` sees the key of each file before it goes.
        """
        tmp = self.root / _SESSIONS
        if not is_real_directory(tmp):
            return
        for session in tmp.iterdir():
            name = session.name
            if session == self._session or not _SESSION.fullmatch(name.removesuffix(self._kind)):
                continue
            try:
                descriptor = os.open(session, _OPEN_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for leftover in session.iterdir():
                    rescue(f"{_SESSIONS}/{name}/{leftover.name}")
                    leftover.unlink(missing_ok=True)
                session.rmdir()
            except OSError:
                continue  # alive, or being removed by someone else
            finally:
                os.close(descriptor)

    def _forget(self, key: str) -> None:
        with self._lock:
            descriptor = self._files.pop(key, None)
            if descriptor is not None and descriptor not in self._busy:
                os.close(descriptor)

    def after_fork(self) -> None:
        """In the child: the session, its lock and the flushing thread are the parent's."""
        self._lock = threading.Lock()
        self._busy.clear()
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        if self._session is not None:
            os.close(self._session_lock)  # closing one copy leaves the parent's lock held
            self._session = None

    def _make_folder(self, folder: Path) -> Sequence[Path]:
        """Make a folder and its parents; returns the folders whose entries changed."""
        changed = []
        missing = folder
        while not missing.is_dir():
            changed.append(missing.parent)
            missing = missing.parent
        make_folder(folder)
        return changed

    def _begin_session(self) -> Path:
        while self._session is None:
            session = beneath(
                self.root, f"{_SESSIONS}/{os.getpid()}-{os.urandom(4).hex()}{self._kind}"
            )
            make_folder(session)
            with contextlib.suppress(FileNotFoundError):
                held = os.open(session, _OPEN_DIRECTORY)
                try:
                    flocks.lock(held, fcntl.LOCK_EX, session)
                except BaseException:
                    os.close(held)
                    session.rmdir()
                    raise
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
        descriptor = open_plain(self.root / "swap.lock", os.O_CREAT | os.O_RDWR)
        try:
            flocks.lock(descriptor, fcntl.LOCK_EX, self.root)
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, key: str) -> int:
        with self._lock:
            descriptor = self._files.get(key)
            if descriptor is None:
                descriptor = open_plain(self.path(key), os.O_RDONLY)
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


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        Path(folder).rmdir()
