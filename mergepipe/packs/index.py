"""The LMDB index over packs: where every record is. Disposable (docs/format.md, "LMDB index").

LMDB facts that decide things here: one environment per process, reopened after fork; never
`sync=False` or `writemap`; the map grows between transactions only; pages have no checksums, so a
reader believes nothing from here without a hash.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import lmdb

from mergepipe.bytestore.local import raise_if_full
from mergepipe.errors import MergepipeError, NoSpace
from mergepipe.ids import ID_BYTES, BlockId, ObjectId, PackId
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content, RecordHeader, RecordKind

INDEX_VERSION = b"1"
_FIRST_MAP_BYTES = 16 << 30
_SMALLEST_MAP_BYTES = 256 << 20  # under `ulimit -v` the first size may not be had
_BLOCK_KEY_BYTES = 2 * ID_BYTES + 3
_BLOCK = struct.Struct("<IQQQB")
_OBJECT = struct.Struct("<IQQQBB")
_PACK = struct.Struct("<32sQI")
_NUMBER = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Location:
    """One record in one pack. Offsets and lengths in bytes; `base` is NO_ID for none."""

    pack: PackId
    offset: int
    codec: int
    version: int
    layer: int
    layers: int
    raw_length: int
    encoded_length: int
    base: bytes

    @property
    def stored_bytes(self) -> int:
        """Length of the whole record: what reading it costs."""
        return RECORD_HEADER_BYTES + self.encoded_length


@dataclass(frozen=True, slots=True)
class PackEntry:
    """A pack to be indexed: its id, file length, content and records with their offsets."""

    id: PackId
    size: int
    content: Content
    records: Sequence[tuple[RecordHeader, int]]


class View:
    """A consistent read of the index. Valid inside `Index.view()` only."""

    def __init__(self, index: "Index", transaction: lmdb.Transaction) -> None:
        self._index = index
        self._transaction = transaction

    def block(self, block: BlockId) -> list[Location]:
        """Every record of a block, encodings together, layers in order."""
        found = []
        with self._transaction.cursor(self._index.blocks) as cursor:
            if cursor.set_range(block):
                for key, value in _items(cursor):
                    if not key.startswith(block) or len(key) != _BLOCK_KEY_BYTES:
                        break
                    number, offset, encoded, raw, layers = _BLOCK.unpack(value)
                    codec, version, layer = key[2 * ID_BYTES :]
                    base = key[ID_BYTES : 2 * ID_BYTES]
                    pack = self._pack(number)
                    found.append(
                        Location(pack, offset, codec, version, layer, layers, raw, encoded, base)
                    )
        return found

    def has_block(self, block: BlockId) -> bool:
        """Whether any record of the block is indexed."""
        with self._transaction.cursor(self._index.blocks) as cursor:
            return cursor.set_range(block) and bytes(cursor.key()).startswith(block)

    def object(self, identity: ObjectId) -> Location | None:
        """Where an object is."""
        value = self._transaction.get(identity, db=self._index.objects)
        if value is None:
            return None
        number, offset, encoded, raw, codec, version = _OBJECT.unpack(value)
        return Location(
            self._pack(number), offset, codec, version, 0, 1, raw, encoded, bytes(ID_BYTES)
        )

    def objects_with_prefix(self, prefix: bytes, limit: int) -> list[ObjectId]:
        """Up to `limit` object ids that begin with these bytes."""
        found: list[ObjectId] = []
        with self._transaction.cursor(self._index.objects) as cursor:
            if cursor.set_range(prefix):
                for key, _ in _items(cursor):
                    if not key.startswith(prefix) or len(found) >= limit:
                        break
                    found.append(ObjectId(key))
        return found

    def packs(self) -> dict[PackId, tuple[int, Content]]:
        """Every pack indexed, with its file length and content."""
        found = {}
        with self._transaction.cursor(self._index.packs) as cursor:
            for _, value in cursor:
                identity, size, content = _PACK.unpack(value)
                found[PackId(identity)] = (size, Content(content))
        return found

    def cached(self, key: bytes) -> bytes | None:
        """What `Index.cache` kept under a key."""
        value = self._transaction.get(key, db=self._index.cache_db)
        return None if value is None else bytes(value)

    def _pack(self, number: int) -> PackId:
        known = self._index.numbers.get(number)
        if known is None:
            value = self._transaction.get(_NUMBER.pack(number), db=self._index.packs)
            if value is None:
                raise lmdb.CorruptedError("a record names a pack that is not indexed")
            known = PackId(_PACK.unpack(value)[0])
            self._index.numbers[number] = known
        return known


class Index:
    """The environment, its tables, and how they are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[int, PackId] = {}
        self._guard = threading.Condition()
        self._readers = 0
        self._growing = False
        self._pid = -1
        self._open()

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A consistent read. Short: a view that stays open keeps freed pages from being reused."""
        if self._pid != os.getpid():
            self._open()
        with self._guard:
            while self._growing:
                self._guard.wait()
            self._readers += 1
        try:
            with self._begin() as transaction:
                yield View(self, transaction)
        finally:
            with self._guard:
                self._readers -= 1
                self._guard.notify_all()

    def add_packs(self, packs: Iterable[PackEntry]) -> None:
        """Index packs in one transaction; those already there are skipped. Raises NoSpace."""
        with self._write() as transaction:
            known = {_PACK.unpack(value)[0] for _, value in transaction.cursor(db=self.packs)}
            with transaction.cursor(self.packs) as cursor:
                number = _NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 1
            blocks: list[tuple[bytes, bytes]] = []
            objects: list[tuple[bytes, bytes]] = []
            for pack in packs:
                if pack.id in known:
                    continue
                transaction.put(
                    _NUMBER.pack(number),
                    _PACK.pack(pack.id, pack.size, pack.content),
                    db=self.packs,
                )
                for header, offset in pack.records:
                    if header.kind is RecordKind.BLOCK:
                        blocks.append(_block_item(number, header, offset))
                    else:
                        objects.append(_object_item(number, header, offset))
                number += 1
            # Sorted, in one go: small random batches cost two to four times the space.
            for items, table in ((blocks, self.blocks), (objects, self.objects)):
                items.sort()
                with transaction.cursor(table) as cursor:
                    cursor.putmulti(items)

    def drop_packs(self, gone: set[PackId]) -> None:
        """Forget packs and every record in them."""
        with self._write() as transaction:
            numbers = {
                key
                for key, value in transaction.cursor(db=self.packs)
                if _PACK.unpack(value)[0] in gone
            }
            dropped = {_NUMBER.unpack(key)[0] for key in numbers}
            for table in (self.blocks, self.objects):
                for key, value in list(transaction.cursor(db=table)):
                    if struct.unpack_from("<I", value)[0] in dropped:
                        transaction.delete(key, db=table)
            for key in numbers:
                transaction.delete(key, db=self.packs)
        self.numbers.clear()

    def cache(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep derived values under keys; they may be lost at any time."""
        with self._write() as transaction, transaction.cursor(self.cache_db) as cursor:
            cursor.putmulti(sorted(items))

    def reset(self) -> None:
        """Start again with an empty index."""
        self._environment.close()
        shutil.rmtree(self.path)
        self._open()

    def _open(self) -> None:
        """Open the environment; start an empty one where what is there cannot be used."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            self.path.parent / "index.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._open_environment()
            except (lmdb.Error, _Unusable) as error:
                if isinstance(error, lmdb.DiskError) or "No space" in str(error):
                    raise NoSpace(f"no space left for the index at {self.path}") from error
                shutil.rmtree(self.path)
                self.path.mkdir()
                self._open_environment()
        finally:
            os.close(lock)
        self._pid = os.getpid()
        self.numbers = {}

    def _open_environment(self) -> None:
        map_bytes = _FIRST_MAP_BYTES
        while True:
            try:
                environment = lmdb.open(
                    str(self.path), map_size=map_bytes, max_dbs=8, max_readers=512, metasync=True
                )
                break
            except (lmdb.MemoryError, MemoryError) as error:
                map_bytes //= 4
                if map_bytes < _SMALLEST_MAP_BYTES:
                    raise MergepipeError(
                        f"the index at {self.path} cannot be mapped",
                        "raise the address space limit (ulimit -v)",
                    ) from error
        try:
            # A file shorter than its pages would end in SIGBUS, not in an error.
            pages = environment.info()["last_pgno"] + 1
            size = (self.path / "data.mdb").stat().st_size
            if size < pages * environment.stat()["psize"] and size > 0:
                raise _Unusable
            environment.reader_check()
            self._environment = environment
            self.blocks = environment.open_db(b"blocks")
            self.objects = environment.open_db(b"objects")
            self.packs = environment.open_db(b"packs")
            self.cache_db = environment.open_db(b"cache")
            meta = environment.open_db(b"meta")
            with environment.begin(write=False) as transaction:
                version = transaction.get(b"version", db=meta)
            if version is None:
                with environment.begin(write=True) as transaction:
                    transaction.put(b"version", INDEX_VERSION, db=meta)
            elif version != INDEX_VERSION:
                raise _Unusable
        except BaseException:
            environment.close()
            raise

    def _begin(self) -> lmdb.Transaction:
        try:
            return self._environment.begin(write=False)
        except lmdb.MapResizedError:  # another process grew it
            self._environment.set_mapsize(0)
            return self._environment.begin(write=False)

    @contextlib.contextmanager
    def _write(self) -> Iterator[lmdb.Transaction]:
        if self._pid != os.getpid():
            self._open()
        self._grow_if_needed()
        try:
            with self._environment.begin(write=True) as transaction:
                yield transaction
        except (lmdb.DiskError, lmdb.MapFullError) as error:
            # A full disk surfaces as an I/O error of the commit.
            raise NoSpace(f"no space left for the index at {self.path}") from error
        except OSError as error:
            raise_if_full(error, str(self.path))
            raise

    def _grow_if_needed(self) -> None:
        info = self._environment.info()
        used = (info["last_pgno"] + 1) * self._environment.stat()["psize"]
        if used * 2 < info["map_size"]:
            return
        with self._guard:
            self._growing = True
            while self._readers:
                self._guard.wait()
            try:
                self._environment.set_mapsize(info["map_size"] * 2)
            finally:
                self._growing = False
                self._guard.notify_all()


class _Unusable(Exception):
    """The index has to be made again."""


def _items(cursor: lmdb.Cursor) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from the cursor on (bytes, as transactions here never ask for buffers)."""
    return cast(Iterator[tuple[bytes, bytes]], iter(cursor))


def _block_item(number: int, header: RecordHeader, offset: int) -> tuple[bytes, bytes]:
    key = header.id + header.base + bytes((header.codec, header.version, header.layer))
    value = _BLOCK.pack(number, offset, header.encoded_length, header.raw_length, header.layers)
    return key, value


def _object_item(number: int, header: RecordHeader, offset: int) -> tuple[bytes, bytes]:
    value = _OBJECT.pack(
        number, offset, header.encoded_length, header.raw_length, header.codec, header.version
    )
    return header.id, value
