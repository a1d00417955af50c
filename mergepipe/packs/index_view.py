"""Reading the index: a `View` of its tables at one moment."""

import struct
from collections.abc import Iterable, Iterator
from typing import cast

import lmdb

from mergepipe.ids import ID_BYTES, NO_ID, BlockId, ObjectId, PackId
from mergepipe.packs.condemned import KEY, parse_places
from mergepipe.packs.environment import Environment, IndexDamaged
from mergepipe.packs.format import Content, RecordHeader, RecordKind, object_header
from mergepipe.packs.index_rows import BLOCK, BLOCK_KEY_BYTES, NUMBER, OBJECT, PACK, items
from mergepipe.packs.records import Location, Place
from mergepipe.packs.view import LINE_BYTES

_DEEPEST_CHAIN = 16


class IndexView:
    """A consistent read of the index. Valid inside `Index.view()` only."""

    def __init__(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        self._environment = environment
        self._tables = environment.tables
        self._transaction = transaction
        self._at: lmdb.Cursor | None = None

    def block(self, block: BlockId) -> list[Location]:
        """Every record of a block, encodings together, layers in order, copies side by side."""
        locations: list[Location] = []
        packs = self._environment.numbers
        # Of plans of large models millions are asked for: one cursor, which ends with the
        # transaction, and all of `_block_location` at once.
        cursor = self._at
        if cursor is None:
            cursor = self._at = self._transaction.cursor(self._tables.blocks)
        if not cursor.set_range(block):
            return locations
        for key, value in items(cursor):
            if not key.startswith(block) or len(key) != BLOCK_KEY_BYTES:
                break
            try:
                number, offset, encoded, raw, layers = BLOCK.unpack(value)
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
                block,
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
                for key, value in items(cursor):
                    if not key.startswith(block) or len(key) != BLOCK_KEY_BYTES:
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
                for key, value in items(cursor):
                    if not key.startswith(block) or len(key) != BLOCK_KEY_BYTES:
                        break
                    layers = seen.setdefault(key[:-1], set())
                    layers.add(key[-1])
                    if len(layers) != self._unpack(BLOCK, value)[4]:
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
            for key, value in items(cursor):
                yield self._block_location(key, value)

    def objects(self) -> Iterator[Location]:
        """Every record of every object, by id."""
        with self._transaction.cursor(self._tables.objects) as cursor:
            for key, value in items(cursor):
                yield self._object_location(key, value)

    def packs(self) -> dict[PackId, tuple[int, Content]]:
        """Every pack indexed, with its file length and content."""
        entries = {}
        with self._transaction.cursor(self._tables.packs) as cursor:
            for _, value in items(cursor):
                identity, size, content = self._unpack(PACK, value)
                entries[PackId(cast(bytes, identity))] = (size, self._content(content))
        return entries

    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged, and are not listed."""
        return parse_places(self.cached(KEY) or b"")

    def pack_count(self) -> int:
        """How many packs are indexed."""
        return int(self._transaction.stat(self._tables.packs)["entries"])

    def cached(self, key: bytes) -> bytes | None:
        """What `Index.cache` kept under a key."""
        value = self._transaction.get(key, db=self._tables.cache)
        return None if value is None else bytes(value)

    def _block_location(self, key: bytes, value: bytes) -> Location:
        number, offset, encoded, raw, layers = self._unpack(BLOCK, value)
        if len(key) != BLOCK_KEY_BYTES:
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
        number, offset, encoded, raw, codec, version = self._unpack(OBJECT, value)
        header = object_header(key, codec, version, raw, encoded)
        return Location(header, self._pack(number), offset)

    def _pack(self, number: int) -> PackId:
        known = self._environment.numbers.get(number)
        if known is None:
            value = self._transaction.get(NUMBER.pack(number), db=self._tables.packs)
            if value is None:
                raise IndexDamaged(
                    self._environment.path, "a record names a pack that is not listed"
                )
            known = PackId(cast(bytes, self._unpack(PACK, bytes(value))[0]))
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
