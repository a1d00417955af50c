"""The LMDB environment of an index: opened once per process, shared, reopened after fork.

LMDB facts that decide things here (http://www.lmdb.tech/doc/ "Caveats"): one environment per file
and process, even across `fork`, or its locks break (py-lmdb refuses a second one); the map may be
resized only while no transaction of this process is open; pages have no checksums, and what is
nonsense on them may end the process, so they are looked over before (index_check.py), and the rest
of the damage is found by hash by readers; never `sync=False` or `writemap`.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import lmdb
from msgspec import Struct

from mergepipe.bytestore import flocks
from mergepipe.bytestore.elsewhere import require
from mergepipe.bytestore.local import raise_if_full
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import open_plain, status_of
from mergepipe.errors import Corruption, NoLocks
from mergepipe.failpoints import reached
from mergepipe.ids import PackId
from mergepipe.packs import index_check, index_files
from mergepipe.packs.index_check import DamagedPages
from mergepipe.packs.mapped_pages import forget_pages
from mergepipe.packs.private_index import make_private, private_index
from mergepipe.packs.turns import Turns

INDEX_VERSION = b"2"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
# Whether a table holds every copy of a record (dupsort).
_TABLES = {b"blocks": True, b"objects": True, b"packs": False, b"cache": False, b"meta": False}
# What says "these bytes are no index" - and not "you may not", "too many readers" and the like.
_DAMAGE = (
    lmdb.BadDbiError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


class IndexDamaged(Corruption):
    """The index is not usable as it is; packs are not touched by that, and it can be rebuilt."""

    kind = "index_damaged"

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"the index at {path} is damaged: {why}", "mp fsck --repair rebuilds it from the packs"
        )


class Tables(Struct, frozen=True):
    """Handles of the tables. `blocks` and `objects` hold every copy of a record (dupsort)."""

    blocks: "lmdb._Database"
    objects: "lmdb._Database"
    packs: "lmdb._Database"
    cache: "lmdb._Database"
    meta: "lmdb._Database"


class IndexRoom(Struct, frozen=True):
    """Bytes used of those mapped, which grow by themselves; and slots of readers taken."""

    used_bytes: int
    map_bytes: int
    readers: int
    most_readers: int


class Environment:
    """One open environment. Get it with `shared`, give it back with `close`."""

    _registry: ClassVar[dict[str, "Environment"]] = {}
    _registry_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, disk: Path | None = None) -> None:
        self.path = path
        self._disk = disk
        self._users = 0
        self._lmdb: lmdb.Environment | None = None
        self._place = path  # where it really is; in the user's cache, if need be
        self._read_only = False
        self._reset_locks()
        self._open()

    @classmethod
    def shared(cls, path: Path, disk: Path | None = None) -> "Environment":
        """The environment of this process for a directory, opened if need be.

        `disk`: as `Index` takes it. Raises NoSpace, NotMounted.
        """
        # The folder itself must be none that a link leads to; where it lies is as we were told.
        key = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        with cls._registry_lock:
            environment = cls._registry.get(key)
            if environment is None:
                environment = cls._registry[key] = cls(Path(key), disk)
            elif environment._replaced():
                environment._reopen(remove=False)
            environment._users += 1
            return environment

    def close(self) -> None:
        """Give it back; the last user closes it."""
        with self._registry_lock:
            self._users -= 1
            if self._users <= 0 and self._registry.get(str(self.path)) is self:
                del self._registry[str(self.path)]
                with self._writing, self._alone():
                    self._close_lmdb()

    @contextlib.contextmanager
    def read(self) -> Iterator[lmdb.Transaction]:
        """A read transaction; inside another of the same thread, that one. Raises IndexDamaged."""
        outer: lmdb.Transaction | None = getattr(self._mine, "transaction", None)
        if outer is not None:
            yield outer
            return
        transaction = self._begin_read()
        self._mine.transaction = transaction
        try:
            with transaction:
                yield transaction
        except _DAMAGE as error:
            raise IndexDamaged(self.path, error) from error
        finally:
            self._mine.transaction = None
            self._turns.leave()

    @contextlib.contextmanager
    def write(self) -> Iterator[lmdb.Transaction]:
        """A write transaction, committed at the end. Raises NoSpace, IndexDamaged."""
        with self._writing:
            if self._read_only:
                self._reopen(remove=True)
                raise IndexDamaged(self.path, "it lacks packs, and may not be written")
            if self._replaced():
                self._reopen(remove=False)
            try:
                self._grow_if_needed()
                with self._begin_write() as transaction:
                    ours = index_check.is_ours(self._place / index_files.DATA)
                    yield transaction
                    reached("index.commit")
                if ours:
                    reached("index.stamp")
                    index_check.stamp(self._place / index_files.DATA)
            except _DAMAGE as error:
                raise IndexDamaged(self.path, error) from error
            except lmdb.Error as error:
                raise index_files.write_error(self._place, error) from error
            except OSError as error:
                raise_if_full(error, str(self.path))
                raise

    @property
    def read_only(self) -> bool:
        """Whether it is used as it stands, and nothing can be kept in it."""
        return self._read_only

    def reset(self) -> None:
        """Start again with an empty index. Not inside a read of this thread."""
        with self._writing:
            self._reopen(remove=True)

    def check(self) -> None:
        """Look over all pages, whatever the stamp says. Raises IndexDamaged."""
        try:
            self._check_pages(trusting=False)
        except _Unusable as error:
            raise IndexDamaged(self.path, error) from error

    def _begin_read(self) -> lmdb.Transaction:
        while True:
            self._turns.enter()
            try:
                assert self._lmdb is not None
                return self._lmdb.begin(write=False)
            except lmdb.MapResizedError:  # another process grew it
                self._turns.leave()
            except _DAMAGE as error:
                self._turns.leave()
                raise IndexDamaged(self.path, error) from error
            except BaseException:
                self._turns.leave()
                raise
            with self._writing:
                self._adopt_size(0)

    def _begin_write(self) -> lmdb.Transaction:
        assert self._lmdb is not None
        try:
            return self._lmdb.begin(write=True)
        except lmdb.MapResizedError:
            self._adopt_size(0)
            return self._lmdb.begin(write=True)

    def _grow_if_needed(self) -> None:
        """Double the map while half of it is used, so that no transaction ever fills it."""
        assert self._lmdb is not None
        self._lmdb.reader_check()
        info = self._lmdb.info()
        used = (info["last_pgno"] + 1) * self._lmdb.stat()["psize"]
        if used * 2 >= info["map_size"]:
            self._adopt_size(info["map_size"] * 2)

    def forget_pages(self) -> None:
        """Give back pages of the map; who reads goes on reading."""
        forget_pages(self._place / index_files.DATA)

    def room(self) -> "IndexRoom":
        """How much of the limits of LMDB is in use."""
        with self.read():
            assert self._lmdb is not None
            info = self._lmdb.info()
            used = (info["last_pgno"] + 1) * self._lmdb.stat()["psize"]
            return IndexRoom(used, info["map_size"], info["num_readers"], info["max_readers"])

    def _adopt_size(self, map_bytes: int) -> None:
        """Set the map size (0: what another process made it); `_writing` is held."""
        with self._alone():
            if self._lmdb is not None:
                self._lmdb.set_mapsize(map_bytes)

    def _open_if_closed(self) -> None:
        if self._lmdb is None:
            self._open()  # the first use after fork

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No transaction of this process is open inside."""
        if getattr(self._mine, "transaction", None) is not None:
            raise RuntimeError("the index cannot change shape inside a view of the same thread")
        with self._turns.alone():
            yield

    def _replaced(self) -> bool:
        """Whether the file we have open is not the one on disk: removed, or rebuilt by another."""
        if self._lmdb is None:
            return True
        status = status_of(self._place / index_files.DATA)
        if status is None:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    def _reopen(self, remove: bool) -> None:
        with self._alone():
            self._close_lmdb()
            self._open(remove)

    def _close_lmdb(self) -> None:
        if self._lmdb is not None:
            self._lmdb.close()
            self._lmdb = None

    def _open(self, remove: bool = False) -> None:
        """Open the environment; start an empty one where what is there cannot be used."""
        if self._disk is not None:
            require(self._disk)
        index_files.check_plain(self.path)
        try:
            self._open_writable(self.path, remove)
        except (OSError, NoLocks) as error:
            if isinstance(error, OSError):
                raise_if_full(error, str(self.path))
                if error.errno not in _READ_ONLY:
                    raise
            self._open_elsewhere(remove)

    def _open_writable(self, path: Path, remove: bool) -> None:
        make_folder(path)
        lock = open_plain(path.parent / "index.lock", os.O_CREAT | os.O_RDWR)
        try:
            flocks.lock(lock, fcntl.LOCK_EX, path)
            self._place = path
            if remove:
                index_files.empty(path)
            index_files.check_plain(path)
            index_files.leave_other_names(path)
            try:
                self._check_pages()
                self._open_files()
            except (*_DAMAGE, _Unusable):
                index_files.empty(path)
                self._open_files()
                index_check.stamp(path / index_files.DATA)
            self._read_only = False
        except lmdb.Error as error:
            raise index_files.write_error(path, error) from error
        finally:
            os.close(lock)

    def _open_elsewhere(self, remove: bool) -> None:
        """A repository of somebody else's, or on a read-only disk, or one without locks.

        Its index is used as it stands, unless it lacks something: then one of our own is made.
        """
        private = private_index(self.path)
        made = private is not None and status_of(private / index_files.DATA) is not None
        if not remove and not made and status_of(self.path / index_files.DATA) is not None:
            with contextlib.suppress(lmdb.Error, OSError):
                self._open_read_only()
                return
        self._open_writable(make_private(self.path, private), remove)

    def _open_read_only(self) -> None:
        """Without locks, as its directory cannot be written.

        A writer elsewhere could pull pages from under a reader, which then finds nonsense by hash,
        and is asked to try again.
        """
        self._place = self.path
        self._check_pages()
        environment = lmdb.open(str(self.path), max_dbs=8, readonly=True, lock=False)
        self._adopt_or_close(environment, create=False)
        self._read_only = True

    def _check_pages(self, *, trusting: bool = True) -> None:
        try:
            index_check.check(self._place / index_files.DATA, _TABLES, trusting=trusting)
        except (DamagedPages, OSError) as error:
            raise _Unusable(str(error)) from error

    def _open_files(self) -> None:
        self._adopt_or_close(index_files.map_files(self._place), create=True)

    def _adopt_or_close(self, environment: lmdb.Environment, *, create: bool) -> None:
        try:
            self._adopt(environment, create=create)
        except BaseException:
            environment.close()
            raise

    def _adopt(self, environment: lmdb.Environment, *, create: bool) -> None:
        """Find the tables (or `create` them), and use it from now on."""
        status = (self._place / index_files.DATA).stat()
        if create:
            environment.reader_check()
        meta = environment.open_db(b"meta", create=create)
        with environment.begin(write=False) as transaction:
            version = transaction.get(b"version", db=meta)
        if version is None and create:
            with environment.begin(write=True) as transaction:
                transaction.put(b"version", INDEX_VERSION, db=meta)
        elif version != INDEX_VERSION:
            raise _Unusable(str(self._place))
        tables = (
            environment.open_db(name, dupsort=dupsort, create=create)
            for name, dupsort in _TABLES.items()
        )
        self.tables = Tables(*tables)
        self.numbers: dict[int, PackId] = {}
        self.known: tuple[int, set[bytes]] = (0, set())
        """The packs that `Index.add_packs` left, and the number that the next one was to get."""
        self._identity = (status.st_dev, status.st_ino)
        self._lmdb = environment

    def _reset_locks(self) -> None:
        self._turns = Turns(self._open_if_closed)
        self._writing = threading.RLock()
        self._mine = threading.local()

    def _after_fork(self) -> None:
        """In the child: drop what belongs to the parent; the next use opens it again."""
        self._reset_locks()
        self._close_lmdb()  # ours only: LMDB leaves the parent's slots and locks alone


class _Unusable(lmdb.Error):
    """The index has to be made again."""


def _after_fork_in_child() -> None:
    Environment._registry_lock = threading.Lock()
    for environment in Environment._registry.values():
        environment._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
