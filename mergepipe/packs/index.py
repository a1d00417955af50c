"""The LMDB index over packs: where every record is. Disposable (docs/format.md, "LMDB index").

A reader believes nothing from here without a hash.
"""

import contextlib
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Self, cast

import lmdb

from mergepipe.bytestore.elsewhere import read_elsewhere
from mergepipe.ids import ID_BYTES, NO_ID, BlockId, ObjectId, PackId
from mergepipe.packs.condemned import KEY, pack_places, parse_places
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.environment import Environment, IndexDamaged, IndexRoom
from mergepipe.packs.format import Content, RecordHeader, RecordKind, object_header
from mergepipe.packs.records import Location, Place
from mergepipe.packs.view import LINE_BYTES, View

_BLOCK_KEY_BYTES = 2 * ID_BYTES + 3
_BLOCK = struct.Struct("<IQQQB")
_OBJECT = struct.Struct("<IQQQBB")
_PACK = struct.Struct("<32sQI")
_NUMBER = struct.Struct(">I")
_NEXT_NUMBER = b"next pack"
_DEEPEST_CHAIN = 16
_DROPPED = 50_000  # records that are forgotten at a time: bounds memory


class _IndexView:
    """A consistent read of the index. Valid inside `Index.view()` only."""

    def __init__(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        self._environment = environment
        self._tables = environment.tables
        self._transaction = transaction

    def block(self, block: BlockId) -> list[Location]:
        """Every record of a block, encodings together, layers in order, copies side by side."""
        locations = []
        packs = self._environment.numbers
        with self._transaction.cursor(self._tables.blocks) as cursor:
            if cursor.set_range(block):
                for key, value in _items(cursor):
                    if not key.startswith(block) or len(key) != _BLOCK_KEY_BYTES:
                        break
                    # As `_block_location`, at once: plans of large models ask for millions.
                    try:
                        number, offset, encoded, raw, layers = _BLOCK.unpack(value)
                    except struct.error as error:
                        raise IndexDamaged(self._environment.path, error) from error
                    codec, version, layer = key[2 * ID_BYTES :]
                    header = RecordHeader(
                        RecordKind.BLOCK,
                        codec,
                        version,
                        layer,
                        layers,
                        raw,
                        encoded,
                        key[:ID_BYTES],
                        key[ID_BYTES : 2 * ID_BYTES],
                    )
                    pack = packs.get(number) or self._pack(number)
                    locations.append(Location(header, pack, offset))
        return locations

    def lines(self, blocks: Iterable[BlockId]) -> bytes:
        """Every record of some blocks, those of each together, as keys and values of the table."""
        lines = []
        with self._transaction.cursor(self._tables.blocks) as cursor:
            for block in blocks:
                if not cursor.set_range(block):
                    continue
                for key, value in _items(cursor):
                    if not key.startswith(block) or len(key) != _BLOCK_KEY_BYTES:
                        break
                    lines.append(key + value)
        whole = b"".join(lines)
        if len(whole) != LINE_BYTES * len(lines):
            raise IndexDamaged(self._environment.path, "a value of the wrong length")
        return whole

    def has_block(self, block: BlockId) -> bool:
        """Whether the block can be made from what is indexed: all layers, and its bases too.

        The bases matter: gc leaves dead records in packs that are mostly alive, and what such a
        delta leans on may be gone.
        """
        return self._has_block(block, _DEEPEST_CHAIN)

    def _has_block(self, block: BlockId, depth: int) -> bool:
        seen: dict[bytes, set[int]] = {}
        with self._transaction.cursor(self._tables.blocks) as cursor:
            if cursor.set_range(block):
                for key, value in _items(cursor):
                    if not key.startswith(block) or len(key) != _BLOCK_KEY_BYTES:
                        break
                    layers = seen.setdefault(key[:-1], set())
                    layers.add(key[-1])
                    if len(layers) != self._unpack(_BLOCK, value)[4]:
                        continue
                    base = key[ID_BYTES : 2 * ID_BYTES]
                    if base == NO_ID or (depth and self._has_block(BlockId(base), depth - 1)):
                        return True
        return False

    def object(self, identity: ObjectId) -> Location | None:
        """Where an object is."""
        copies = self.object_copies(identity)
        return copies[0] if copies else None

    def object_copies(self, identity: ObjectId) -> list[Location]:
        """Every place where an object is."""
        with self._transaction.cursor(self._tables.objects) as cursor:
            if not cursor.set_key(identity):
                return []
            return [
                self._object_location(identity, bytes(value)) for value in cursor.iternext_dup()
            ]

    def objects_with_prefix(self, prefix: bytes, limit: int) -> list[ObjectId]:
        """Up to `limit` object ids that begin with these bytes."""
        identities: list[ObjectId] = []
        with self._transaction.cursor(self._tables.objects) as cursor:
            # An empty prefix is no key to LMDB, and means the first one here.
            more = cursor.set_range(prefix) if prefix else cursor.first()
            while more and len(identities) < limit:
                key = bytes(cursor.key())
                if not key.startswith(prefix):
                    break
                identities.append(ObjectId(key))
                more = cursor.next_nodup()
        return identities

    def blocks(self) -> Iterator[Location]:
        """Every record of every block, by block id."""
        with self._transaction.cursor(self._tables.blocks) as cursor:
            for key, value in _items(cursor):
                yield self._block_location(key, value)

    def objects(self) -> Iterator[Location]:
        """Every record of every object, by id."""
        with self._transaction.cursor(self._tables.objects) as cursor:
            for key, value in _items(cursor):
                yield self._object_location(key, value)

    def packs(self) -> dict[PackId, tuple[int, Content]]:
        """Every pack indexed, with its file length and content."""
        entries = {}
        with self._transaction.cursor(self._tables.packs) as cursor:
            for _, value in _items(cursor):
                identity, size, content = self._unpack(_PACK, value)
                entries[PackId(cast(bytes, identity))] = (size, self._content(content))
        return entries

    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged, and are not listed."""
        return parse_places(self.cached(KEY) or b"")

    def cached(self, key: bytes) -> bytes | None:
        """What `Index.cache` kept under a key."""
        value = self._transaction.get(key, db=self._tables.cache)
        return None if value is None else bytes(value)

    def _block_location(self, key: bytes, value: bytes) -> Location:
        number, offset, encoded, raw, layers = self._unpack(_BLOCK, value)
        if len(key) != _BLOCK_KEY_BYTES:
            raise IndexDamaged(self._environment.path, "a key of the wrong length")
        codec, version, layer = key[2 * ID_BYTES :]
        base = key[ID_BYTES : 2 * ID_BYTES]
        header = RecordHeader(
            kind=RecordKind.BLOCK,
            codec=codec,
            version=version,
            layer=layer,
            layers=layers,
            raw_length=raw,
            encoded_length=encoded,
            id=key[:ID_BYTES],
            base=base,
        )
        return Location(header, self._pack(number), offset)

    def _object_location(self, key: bytes, value: bytes) -> Location:
        number, offset, encoded, raw, codec, version = self._unpack(_OBJECT, value)
        header = object_header(key, codec, version, raw, encoded)
        return Location(header, self._pack(number), offset)

    def _pack(self, number: int) -> PackId:
        known = self._environment.numbers.get(number)
        if known is None:
            value = self._transaction.get(_NUMBER.pack(number), db=self._tables.packs)
            if value is None:
                raise IndexDamaged(
                    self._environment.path, "a record names a pack that is not listed"
                )
            known = PackId(cast(bytes, self._unpack(_PACK, bytes(value))[0]))
            self._environment.numbers[number] = known
        return known

    def _unpack(self, layout: struct.Struct, value: bytes) -> tuple[int, ...]:
        try:
            return layout.unpack(value)
        except struct.error as error:
            raise IndexDamaged(self._environment.path, error) from error

    def _content(self, number: int) -> Content:
        try:
            return Content(number)
        except ValueError as error:
            raise IndexDamaged(self._environment.path, error) from error


class Index:
    """The tables, and how they are written. May be used from any thread, and after fork."""

    def __init__(self, path: Path, disk: Path | None = None) -> None:
        """`disk`: the directory of another disk in which it is, and which is not made for it."""
        self.path = path
        self._environment = Environment.shared(path, disk)
        self._closed = False

    @classmethod
    def of(cls, root: Path, key: str) -> Self:
        """An index of the repository at `root`: `index`, or that of a remote or a quarantine.

        Raises NotMounted, UnsafeRepository.
        """
        disk = read_elsewhere(root).index
        return cls((root if disk is None else disk) / key, disk)

    def close(self) -> None:
        """Give the environment back; other indexes of this process on the same path keep it."""
        if not self._closed:
            self._closed = True
            self._environment.close()

    def check(self) -> None:
        """Look over all pages of the file. Raises IndexDamaged."""
        self._environment.check()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A consistent read. Short: a view that stays open keeps freed pages from being reused.

        Raises IndexDamaged.
        """
        with self._environment.read() as transaction:
            yield _IndexView(self._environment, transaction)

    def add_packs(self, packs: Iterable[PackEntry]) -> None:
        """Index packs in one transaction; those already there are skipped. Raises NoSpace."""
        with self._environment.write() as transaction:
            tables = self._environment.tables
            # Never reused: another process may still know what a number meant.
            stored = transaction.get(_NEXT_NUMBER, db=tables.meta)
            number = 1 if stored is None else _NUMBER.unpack(stored)[0]
            known = self._known_packs(transaction, number)
            blocks: list[tuple[bytes, bytes]] = []
            objects: list[tuple[bytes, bytes]] = []
            for pack in packs:
                if pack.id in known:
                    continue
                known.add(pack.id)
                transaction.put(
                    _NUMBER.pack(number),
                    _PACK.pack(pack.id, pack.size, pack.content),
                    db=tables.packs,
                )
                for header, offset in pack.records:
                    if header.kind is RecordKind.BLOCK:
                        blocks.append(_block_item(number, header, offset))
                    else:
                        objects.append(_object_item(number, header, offset))
                number += 1
            transaction.put(_NEXT_NUMBER, _NUMBER.pack(number), db=tables.meta)
            self._environment.known = number, known
            # Sorted, in one go: small random batches cost two to four times the space.
            for items, table in ((blocks, tables.blocks), (objects, tables.objects)):
                items.sort()
                with transaction.cursor(table) as cursor:
                    cursor.putmulti(items)

    def _known_packs(self, transaction: lmdb.Transaction, number: int) -> set[bytes]:
        """The packs that are indexed. Those that were left by the last call, if all of them are.

        With half a million packs, to look at all for every few that come would take for ever.
        """
        packs = self._environment.tables.packs
        after, known = self._environment.known
        if after == number and transaction.stat(packs)["entries"] == len(known):
            return known
        return {_PACK.unpack(value)[0] for _, value in transaction.cursor(db=packs)}

    def drop_packs(self, gone: set[PackId]) -> None:
        """Forget packs and every record in them."""
        with self._environment.write() as transaction:
            tables = self._environment.tables
            numbers = {
                key
                for key, value in transaction.cursor(db=tables.packs)
                if _PACK.unpack(value)[0] in gone
            }
            dropped = {_NUMBER.unpack(key)[0] for key in numbers}
            for table in (tables.blocks, tables.objects):
                begin = b""
                while dead := list(islice(_dead(transaction, table, begin, dropped), _DROPPED)):
                    for key, value in dead:
                        transaction.delete(key, value, db=table)
                    begin = dead[-1][0]
            for number in numbers:
                transaction.delete(number, db=tables.packs)

    def condemn(self, damaged: Collection[Location]) -> None:
        """Drop records, and remember where they are."""
        with self._environment.write() as transaction:
            tables = self._environment.tables
            numbers = {
                PackId(_PACK.unpack(value)[0]): _NUMBER.unpack(key)[0]
                for key, value in transaction.cursor(db=tables.packs)
            }
            for at in damaged:
                if (number := numbers.get(at.pack)) is None:
                    continue
                if at.header.kind is RecordKind.BLOCK:
                    key, value = _block_item(number, at.header, at.offset)
                    transaction.delete(key, value, db=tables.blocks)
                else:
                    key, value = _object_item(number, at.header, at.offset)
                    transaction.delete(key, value, db=tables.objects)
            known = _IndexView(self._environment, transaction).condemned()
            places = known.union(at.place for at in damaged)
            transaction.put(KEY, pack_places(places), db=tables.cache)

    def cache(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep derived values under keys; they may be lost at any time, or not be kept at all."""
        if self._environment.read_only:
            return
        with (
            self._environment.write() as transaction,
            transaction.cursor(self._environment.tables.cache) as cursor,
        ):
            cursor.putmulti(sorted(items))

    def uncache(self, unwanted: Callable[[bytes, bytes], bool]) -> None:
        """Forget the derived values of which `unwanted(key, value)` says so."""
        if self._environment.read_only:
            return
        with self._environment.write() as transaction:
            table = self._environment.tables.cache
            keys = [
                key for key, value in _items(transaction.cursor(db=table)) if unwanted(key, value)
            ]
            for key in keys:
                transaction.delete(key, db=table)

    def room(self) -> IndexRoom:
        """How much of the limits of LMDB is in use. Raises IndexDamaged."""
        return self._environment.room()

    def forget_pages(self) -> None:
        """Give back the memory of what was read of the file: who walks all of it calls this."""
        self._environment.forget_pages()

    def reset(self) -> None:
        """Start again with an empty index."""
        self._environment.reset()


def _items(cursor: lmdb.Cursor) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from the cursor on (bytes, as transactions here never ask for buffers)."""
    return cast(Iterator[tuple[bytes, bytes]], iter(cursor))


def _dead(
    transaction: lmdb.Transaction, table: "lmdb._Database", begin: bytes, dropped: set[int]
) -> Iterator[tuple[bytes, bytes]]:
    """Records from a key on that lie in packs of these numbers."""
    with transaction.cursor(table) as cursor:
        if cursor.set_range(begin) if begin else cursor.first():
            for key, value in _items(cursor):
                if _record_number(value) in dropped:
                    yield key, value


def _record_number(value: bytes) -> int:
    return int.from_bytes(value[:4], "little")


def _block_item(number: int, header: RecordHeader, offset: int) -> tuple[bytes, bytes]:
    key = header.id + header.base + bytes((header.codec, header.version, header.layer))
    value = _BLOCK.pack(number, offset, header.encoded_length, header.raw_length, header.layers)
    return key, value


def _object_item(number: int, header: RecordHeader, offset: int) -> tuple[bytes, bytes]:
    value = _OBJECT.pack(
        number, offset, header.encoded_length, header.raw_length, header.codec, header.version
    )
    return header.id, value
