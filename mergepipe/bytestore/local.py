"""A byte store in a directory of this machine, made durable call by call.

fsync of a file makes its bytes durable; only fsync of the directory makes its *name* durable
(https://man7.org/linux/man-pages/man2/fsync.2.html), so every publication does both.
"""

import contextlib
import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergepipe.bytestore import flocks
from mergepipe.bytestore.elsewhere import (
    LARGE,
    MARKER,
    POINTER,
    Elsewhere,
    base_of,
    read_elsewhere,
    require,
)
from mergepipe.bytestore.local_sessions import FOLDER, Sessions
from mergepipe.bytestore.local_writer import LocalWriter, raise_if_full, sync_directory
from mergepipe.bytestore.protocol import Buffer, ByteWriter, Swap
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import (
    beneath,
    is_real_directory,
    open_plain,
    plain_status,
    read_plain,
    status_of,
)
from mergepipe.bytestore.whole_calls import fill_at
from mergepipe.bytestore.whole_disk import WholeDisk
from mergepipe.closing import Closing
from mergepipe.errors import MergepipeError
from mergepipe.failpoints import reached
from mergepipe.forks import unwatch, watch

_OPEN_FILES = 64
_COPIED_BYTES = 1 << 20

__all__ = ["LocalByteStore", "LocalWriter", "raise_if_full", "sync_directory"]


class LocalByteStore(Closing):
    """Keys are files under `root`; unfinished values live in `root/tmp/<session>/`.

    What is no plain file, or lies behind a link, raises UnsafeRepository (`untrusted.py`). What is
    large may lie on another disk (`elsewhere.py`), and is written there from the start.
    """

    def __init__(self, root: Path, sessions: str = "", elsewhere: Elsewhere | None = None) -> None:
        """`sessions` ends the names of its sessions: what one kind leaves, no other removes.

        `elsewhere`: what lies on other disks; None: what the repository at `root` says.

        Raises NotMounted, UnsafeRepository.
        """
        self.root = root
        self._stamp = _stamp(root)
        self._elsewhere = read_elsewhere(root) if elsewhere is None else elsewhere
        self._lock = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._sessions = Sessions(sessions)
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        watch(self)

    def close(self) -> None:
        """Close every descriptor and remove this process's session directory."""
        with self._lock:
            while self._files:
                descriptor = self._files.popitem()[1]
                if descriptor not in self._busy:  # else its reader closes it
                    os.close(descriptor)
            self._sessions.end()
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
        return self.keys_after(prefix, "")

    def keys_after(self, prefix: str, after: str) -> Iterator[str]:
        """The keys of `list` that come after a key; folders that lie before it are not entered."""
        if not prefix or prefix.split("/", 1)[0] in LARGE:
            self._check_disks()  # a disk that is gone must not look like an empty folder, either
        pending = [prefix]
        while pending:
            key = pending.pop()
            if key and not key.endswith("/"):
                yield key
                continue
            try:
                if key and not is_real_directory(beneath(self._base(key), key.rstrip("/"))):
                    continue
                entries = self._entries(key)
            except (FileNotFoundError, NotADirectoryError):
                continue
            # "a.b" comes before "a/b": a folder is sorted with its slash, as its keys are.
            pending += sorted(
                (
                    entry
                    for entry in entries
                    if entry > after or (entry.endswith("/") and after.startswith(entry))
                ),
                reverse=True,
            )

    def _entries(self, key: str) -> Sequence[str]:
        """Keys in a folder, those of folders with a slash; in no order."""
        entries = []
        for base in {self._base(key)} if key else {self.root, self._base(LARGE[0])}:
            with os.scandir(base / key) as found:
                for entry in found:
                    if key or (self._base(entry.name) == base and entry.name != MARKER):
                        slash = "/" if entry.is_dir(follow_symlinks=False) else ""
                        entries.append(f"{key}{entry.name}{slash}")
        return entries

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key."""
        return dict(self.items_after(prefix, ""))

    def items_after(self, prefix: str, after: str) -> Iterator[tuple[str, bytes]]:
        """Keys after a key with their values, one at a time."""
        for key in self.keys_after(prefix, after):
            # Not `get`: the folders above it have just been looked at, for all keys in them.
            path = Path(f"{self._base(key)}/{key}")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                yield key, read_plain(path)

    def create(self) -> LocalWriter:
        """Begin a value in this process's session directory, where large ones lie."""
        return self._create_in(self._base(FOLDER))

    def _create_in(self, base: Path) -> LocalWriter:
        with self._lock:
            try:
                return LocalWriter(self._next_file(base), self._flusher)
            except OSError as error:
                raise_if_full(error, str(base))
                raise

    @property
    def session(self) -> str:
        """The key of this process's session directory, which is there until `close`."""
        with self._lock:
            return f"{FOLDER}/{self._next_file(self._base(FOLDER)).parent.name}"

    def key_of(self, writer: LocalWriter) -> str:
        """Where an unpublished value is, for `adopt` of another process."""
        return writer.path.relative_to(self._base(FOLDER)).as_posix()

    def adopt(self, key: str) -> LocalWriter:
        """Take an unpublished, synced value of another process into this one's session.

        Raises FileNotFoundError if it is gone, as when that process's session was tidied up.
        """
        with self._lock:
            path = self._next_file(self._base(FOLDER))
        theirs = self.path(key)
        size = plain_status(theirs).st_size
        theirs.rename(path)
        return LocalWriter(path, self._flusher, durable_bytes=size)

    def set_aside(self, writer: LocalWriter, key: str) -> None:
        """Let an unpublished value outlive this process, under a key of its own. Raises NoSpace."""
        target = self.path(key)
        try:
            self._make_folder(target.parent)
            reached("file.move")
            writer.path.rename(target)
        except OSError as error:
            raise_if_full(error, str(target))
            raise
        writer.path, writer.is_aside = target, True

    def reopen(self, key: str) -> LocalWriter:
        """A value that was set aside, to be published: its bytes need not be durable yet."""
        return LocalWriter.reopened(self.path(key), self._flusher)

    def make_folder(self, key: str) -> None:
        """Make the folder of keys that begin so."""
        self._make_folder(self.path(key))

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Rename synced values into place, then make the names durable."""
        for folder in self._rename(values):
            sync_directory(folder)

    def _rename(self, values: Sequence[tuple[ByteWriter, str]]) -> dict[Path, None]:
        """Rename synced values into place; returns the folders whose names changed."""
        folders: dict[Path, None] = {}
        self._check_disks()
        for given, key in values:
            assert isinstance(given, LocalWriter)
            if not given.synced:
                given.sync()
            target = self.path(key)
            writer = self._on_disk_of(key, given)
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
        return folders

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value atomically and durably."""
        writer = self._create_in(self._base(key))
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

    def swap_together(self, swaps: Sequence[Swap]) -> bool:
        """Compare and swap many values under that lock, or none; made durable together."""
        with self._swap_lock(), WholeDisk(self.root, len(swaps)) as disk:
            if any(self.get(key) != old for key, old, _ in swaps):
                return False
            writers: list[tuple[LocalWriter, str]] = []
            try:
                for key, _, new in swaps:
                    if new is not None:
                        writer = self._create_in(self._base(key))
                        writers.append((writer, key))
                        writer.write(new)
                        writer.seal() if disk.at_once else writer.sync()
                if disk.at_once:
                    disk.sync()
                    for writer, _ in writers:
                        writer.made_durable()
                gone = [key for key, old, new in swaps if new is None and old is not None]
                for key in gone:  # first: another may be named as a folder of theirs was
                    self.delete(key)
                folders = {self.path(key).parent: None for key in gone} | self._rename(writers)
            except BaseException:
                for writer, _ in writers:
                    writer.abort()
                raise
            disk.sync_names([folder for folder in folders if folder.is_dir()])
            return True

    def path(self, key: str) -> Path:
        """The file that holds the value of a key, or would. Raises MergepipeError for no key."""
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise MergepipeError(f"not a key: {key!r}")
        return beneath(self._base(key), key)

    def folder(self, prefix: str) -> Path:
        """The directory of the keys that begin with `prefix`, which ends with a slash."""
        return self._base(prefix) / prefix

    def move(self, key: str, target: str) -> None:
        """Give a value another key; the caller makes that durable. Raises FileNotFoundError."""
        self._check_disks()
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

        `rescue` sees the key of each large file before it goes.
        """
        large = self._base(FOLDER)
        self._sessions.remove_dead(large, lambda path: rescue(path.relative_to(large).as_posix()))
        if large != self.root:  # where small values begin
            self._sessions.remove_dead(self.root, lambda path: None)

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
        self._sessions.forget()

    def _make_folder(self, folder: Path) -> Sequence[Path]:
        """Make a folder and its parents; returns the folders whose entries changed."""
        changed = []
        missing = folder
        while not missing.is_dir():
            changed.append(missing.parent)
            missing = missing.parent
        make_folder(folder)
        return changed

    def _next_file(self, base: Path) -> Path:
        """A name for a new file in our session below `base`, which has begun then.

        Raises NoSpace: a disk may have no inode left for the session's directory.
        """
        if not self._sessions.begun(base):
            self._check_disks()
        try:
            return self._sessions.next_file(base)
        except OSError as error:
            raise_if_full(error, str(base))
            raise

    def _base(self, key: str) -> Path:
        """The directory below which a key lies."""
        return base_of(self._elsewhere, self.root, key)

    def _check_disks(self) -> None:
        """Raise MergepipeError unless what is large is where it was when this store was opened."""
        if _stamp(self.root) != self._stamp:
            raise MergepipeError(
                f"the packs or the index of {self.root} were moved to another disk meanwhile",
                "do it again; a server has to be started again",
            )
        if self._elsewhere.packs is not None:
            require(self._elsewhere.packs)

    def _on_disk_of(self, key: str, writer: LocalWriter) -> LocalWriter:
        """A synced value on the disk that a key is on: itself, or a copy."""
        base = self._base(key)
        if self._elsewhere.packs is None or writer.path.is_relative_to(base):
            return writer
        copy = self._create_in(base)
        try:
            with writer.path.open("rb") as file:
                while chunk := file.read(_COPIED_BYTES):
                    copy.write(chunk)
            copy.sync()
        except BaseException:
            copy.abort()
            raise
        writer.abort()
        return copy

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


def _stamp(root: Path) -> tuple[int, int] | None:
    """What changes when something is moved to another disk, or back."""
    status = status_of(root / POINTER)
    return None if status is None else (status.st_ino, status.st_mtime_ns)
