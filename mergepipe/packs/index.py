"""The LMDB index over packs: where every record is. Disposable (docs/format.md, "LMDB index").

A reader believes nothing from here without a hash.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb

from mergepipe.bytestore.elsewhere import read_elsewhere
from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.packs.condemned import KEY, pack_places
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.environment import Environment, IndexRoom
from mergepipe.packs.format import RecordKind
from mergepipe.packs.index_rows import NUMBER, PACK, items, pack_number, record_row
from mergepipe.packs.index_view import IndexView
from mergepipe.packs.records import Location
from mergepipe.packs.view import View

_NEXT_NUMBER = b"next pack"
_PACKS_FOR_ONE = 100  # that are listed in the time in which one is looked up
_DROPPED = 50_000  # records that are forgotten at a time: bounds memory


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
            yield IndexView(self._environment, transaction)

    def add_packs(self, packs: Iterable[PackEntry]) -> None:
        """Index packs in one transaction; those already there are skipped. Raises NoSpace."""
        with self._environment.write() as transaction:
            tables = self._environment.tables
            # Never reused: another process may still know what a number meant.
            stored = transaction.get(_NEXT_NUMBER, db=tables.meta)
            number = 1 if stored is None else NUMBER.unpack(stored)[0]
            packs = list(packs)
            known = self._known_packs(transaction, number, packs)
            blocks: list[tuple[bytes, bytes]] = []
            objects: list[tuple[bytes, bytes]] = []
            for pack in packs:
                if pack.id in known:
                    continue
                known.add(pack.id)
                transaction.put(
                    NUMBER.pack(number),
                    PACK.pack(pack.id, pack.size, pack.content),
                    db=tables.packs,
                )
                for header, offset in pack.records:
                    rows = blocks if header.kind is RecordKind.BLOCK else objects
                    rows.append(record_row(number, header, offset))
                number += 1
            transaction.put(_NEXT_NUMBER, NUMBER.pack(number), db=tables.meta)
            if len(known) == transaction.stat(tables.packs)["entries"]:
                self._environment.known = number, known
            # Sorted, in one go: small random batches cost two to four times the space.
            for rows, table in ((blocks, tables.blocks), (objects, tables.objects)):
                rows.sort()
                with transaction.cursor(table) as cursor:
                    cursor.putmulti(rows)

    def _known_packs(
        self, transaction: lmdb.Transaction, number: int, packs: Sequence[PackEntry]
    ) -> set[bytes]:
        """Those of some packs that are indexed, at least.

        With half a million packs, to look at all for every few that come would take for ever.
        """
        table = self._environment.tables.packs
        count = transaction.stat(table)["entries"]
        after, known = self._environment.known
        if after == number and count == len(known):
            return known
        if len(packs) * _PACKS_FOR_ONE < count:
            view = IndexView(self._environment, transaction)
            indexed = [_is_indexed(view, pack) for pack in packs]
            if None not in indexed:
                return {bytes(pack.id) for pack, there in zip(packs, indexed, strict=True) if there}
        return {PACK.unpack(value)[0] for _, value in transaction.cursor(db=table)}

    def drop_packs(self, gone: set[PackId]) -> None:
        """Forget packs and every record in them."""
        with self._environment.write() as transaction:
            tables = self._environment.tables
            numbers = {
                key
                for key, value in transaction.cursor(db=tables.packs)
                if PACK.unpack(value)[0] in gone
            }
            dropped = {NUMBER.unpack(key)[0] for key in numbers}
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
                PackId(PACK.unpack(value)[0]): NUMBER.unpack(key)[0]
                for key, value in transaction.cursor(db=tables.packs)
            }
            for at in damaged:
                if (number := numbers.get(at.pack)) is None:
                    continue
                key, value = record_row(number, at.header, at.offset)
                is_block = at.header.kind is RecordKind.BLOCK
                transaction.delete(key, value, db=tables.blocks if is_block else tables.objects)
            known = IndexView(self._environment, transaction).condemned()
            places = known.union(at.place for at in damaged)
            transaction.put(KEY, pack_places(places), db=tables.cache)

    def cache(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep derived values under keys; they may be lost at any time, or not be kept at all."""
        if self._environment.read_only:
            return
        with (
            self._environment.write() as transaction,
            transaction.cursor(self._environment.tables.cache) as cursor,
        ):
            cursor.putmulti(sorted(values))

    def uncache(self, unwanted: Callable[[bytes, bytes], bool]) -> None:
        """Forget the derived values of which `unwanted(key, value)` says so."""
        if self._environment.read_only:
            return
        with self._environment.write() as transaction:
            table = self._environment.tables.cache
            keys = [
                key for key, value in items(transaction.cursor(db=table)) if unwanted(key, value)
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


def _is_indexed(view: View, pack: PackEntry) -> bool | None:
    """Whether a pack is indexed, as its first record tells; None where that tells nothing."""
    if not pack.records or view.condemned():
        return None
    header = pack.records[0][0]
    if header.kind is RecordKind.BLOCK:
        copies = view.block(BlockId(header.id))
    else:
        copies = view.object_copies(ObjectId(header.id))
    return any(at.pack == pack.id for at in copies)


def _dead(
    transaction: lmdb.Transaction, table: "lmdb._Database", begin: bytes, dropped: set[int]
) -> Iterator[tuple[bytes, bytes]]:
    """Records from a key on that lie in packs of these numbers."""
    with transaction.cursor(table) as cursor:
        if cursor.set_range(begin) if begin else cursor.first():
            for key, value in items(cursor):
                if pack_number(value) in dropped:
                    yield key, value
