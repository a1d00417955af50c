"""A byte store in a directory of this machine, made durable call by call.

fsync of a file makes its bytes durable; only fsync of the directory makes its *name* durable
(https://man7.org/linux/man-pages/man2/fsync.2.html), so every publication does both.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergepipe.bytestore import flocks
from mergepipe.bytestore.elsewhere import Elsewhere, read_elsewhere
from mergepipe.bytestore.local_keys import LocalKeys
from mergepipe.bytestore.local_sessions import FOLDER, Sessions
from mergepipe.bytestore.local_writer import LocalWriter, raise_if_full, sync_directory
from mergepipe.bytestore.open_files import OpenFiles
from mergepipe.bytestore.protocol import Buffer, ByteWriter, Swap
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import open_plain, plain_status, read_plain
from mergepipe.bytestore.whole_calls import fill_at
from mergepipe.bytestore.whole_disk import WholeDisk
from mergepipe.closing import Closing
from mergepipe.failpoints import reached
from mergepipe.forks import unwatch, watch

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
        self._keys = LocalKeys(root, read_elsewhere(root) if elsewhere is None else elsewhere)
        self._lock = threading.Lock()
        self._files = OpenFiles(lambda key: open_plain(self.path(key), os.O_RDONLY))
        self._sessions = Sessions(sessions)
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        watch(self)

    def close(self) -> None:
        """Close every descriptor and remove this process's session directory."""
        self._files.close()
        with self._lock:
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
        with self._files.reading(key) as descriptor:
            return fill_at(descriptor, out, offset)

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
        return self._keys.after(prefix, after)

    def within(self, folder: str) -> Sequence[str]:
        """Keys that lie in a folder itself, and folders (with a slash) in it; in no order."""
        return self._keys.within(folder)

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key."""
        return dict(self.items_after(prefix, ""))

    def items_after(self, prefix: str, after: str) -> Iterator[tuple[str, bytes]]:
        """Keys after a key with their values, one at a time."""
        for key in self.keys_after(prefix, after):
            # Not `get`: the folders above it have just been looked at, for all keys in them.
            path = Path(f"{self._keys.base(key)}/{key}")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                yield key, read_plain(path)

    def create(self) -> LocalWriter:
        """Begin a value in this process's session directory, where large ones lie."""
        return self._create_in(self._keys.base(FOLDER))

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
            return f"{FOLDER}/{self._next_file(self._keys.base(FOLDER)).parent.name}"

    def key_of(self, writer: LocalWriter) -> str:
        """Where an unpublished value is, for `adopt` of another process."""
        return writer.path.relative_to(self._keys.base(FOLDER)).as_posix()

    def adopt(self, key: str) -> LocalWriter:
        """Take an unpublished, synced value of another process into this one's session.

        Raises FileNotFoundError if it is gone, as when that process's session was tidied up.
        """
        with self._lock:
            path = self._next_file(self._keys.base(FOLDER))
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
        self._keys.check_disks()
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
            self._files.forget(key)  # an open descriptor would go on reading what was there before
            folders[target.parent] = None
        return folders

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value atomically and durably."""
        writer = self._create_in(self._keys.base(key))
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

    def swap_together(self, swaps: Sequence[Swap], near: Sequence[str] = ()) -> bool:
        """Compare and swap many values under that lock, or none; made durable together."""
        with self._swap_lock(), WholeDisk(self.root, len(swaps)) as disk:
            if any(self.get(key) != old for key, old, _ in swaps):
                return False
            writers: list[tuple[LocalWriter, str]] = []
            try:
                for key, _, new in swaps:
                    if new is not None:
                        writer = self._create_in(self._keys.base(key))
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
        return self._keys.path(key)

    def folder(self, prefix: str) -> Path:
        """The directory of the keys that begin with `prefix`, which ends with a slash."""
        return self._keys.base(prefix) / prefix

    def move(self, key: str, target: str) -> None:
        """Give a value another key; the caller makes that durable. Raises FileNotFoundError."""
        self._keys.check_disks()
        reached("file.move")
        self.path(key).rename(self.path(target))
        self._files.forget(key)  # what was open under the old name
        self._files.forget(target)

    def delete(self, key: str) -> None:
        """Remove the key and what it left open."""
        self._files.forget(key)
        reached("file.delete")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.path(key).unlink()

    def remove_dead_sessions(self, rescue: Callable[[str], None] = lambda key: None) -> None:
        """Remove what killed processes left in tmp/. A live session is held by its flock.

        `rescue` sees the key of each large file before it goes.
        """
        large = self._keys.base(FOLDER)
        self._sessions.remove_dead(large, lambda path: rescue(path.relative_to(large).as_posix()))
        if large != self.root:  # where small values begin
            self._sessions.remove_dead(self.root, lambda path: None)

    def after_fork(self) -> None:
        """In the child: the session, its lock and the flushing thread are the parent's."""
        self._lock = threading.Lock()
        self._files.after_fork()
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
            self._keys.check_disks()
        try:
            return self._sessions.next_file(base)
        except OSError as error:
            raise_if_full(error, str(base))
            raise

    def _on_disk_of(self, key: str, writer: LocalWriter) -> LocalWriter:
        """A synced value on the disk that a key is on: itself, or a copy."""
        base = self._keys.base(key)
        if self._keys.on_one_disk or writer.path.is_relative_to(base):
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


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        Path(folder).rmdir()
