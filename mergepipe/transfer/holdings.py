"""What another repository holds: as it says itself, or as the footers of its packs say.

Footers never change, for the pack's name is their hash: read once, each is kept for good.
"""

import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mergepipe.bytestore.protocol import ByteStore, Holding, as_holding
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import NO_ID, PackId, digest
from mergepipe.packs.choice import DEEPEST_CHAIN
from mergepipe.packs.format import FOOTER_ENTRY_BYTES, RecordHeader, parse_footer
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_ids, pack_key, read_footer_bytes
from mergepipe.packs.records import Location, complete_encodings
from mergepipe.parallel import ordered_map

# Ids asked about in one exchange; the other side takes 100,000 (docs/format-remote.md).
_ASKED_AT_ONCE = 65_536
_READERS = 8
# Where an id begins in a footer's line, see packs.format.
_ID_AT = slice(32, 64)


class FooterCache(Protocol):
    """Where footers are kept between runs. May lose them at any time."""

    def load(self, packs: Sequence[PackId]) -> dict[PackId, bytes]:
        """The footers it has."""
        ...

    def keep(self, footers: Sequence[tuple[PackId, bytes]]) -> None:
        """Keep footers."""
        ...


class IndexedFooters:
    """Footers in the `cache` table of a repository's index."""

    _PREFIX = b"f/"

    def __init__(self, index: Index) -> None:
        self._index = index

    def load(self, packs: Sequence[PackId]) -> dict[PackId, bytes]:
        """The footers it has; what damage made of them does not count."""
        with self._index.view() as view:
            contents = [(pack, view.cached(self._PREFIX + pack)) for pack in packs]
        return {pack: value for pack, value in contents if value and digest(value) == pack}

    def keep(self, footers: Sequence[tuple[PackId, bytes]]) -> None:
        """Keep footers."""
        self._index.cache([(self._PREFIX + pack, footer) for pack, footer in footers])


class Footers:
    """The records of all packs of a byte store, from their footers. May be used from any thread.

    Memory: 136 bytes a record.
    """

    def __init__(self, store: ByteStore, cache: FooterCache | None = None) -> None:
        self._store = store
        self._cache = cache
        self._footers: dict[PackId, bytes] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """List the packs again; footers of new ones are read, gone ones forgotten."""
        with self._lock:
            self._refresh()

    def packs(self) -> list[PackId]:
        """Every pack, sorted."""
        return sorted(self._known())

    def records(self, pack: PackId) -> list[tuple[RecordHeader, int]]:
        """Every record of a pack with its offset. Raises KeyError for a pack that is not listed."""
        return parse_footer(self._known()[pack], pack_key(pack))

    def find(self, ids: Collection[bytes]) -> dict[bytes, list[Location]]:
        """Where the records of some blocks or objects are; ids without any are left out."""
        locations: dict[bytes, list[Location]] = {}
        wanted = ids if isinstance(ids, set | frozenset | dict) else set(ids)
        for pack, footer in sorted(self._known().items()):
            for at in range(0, len(footer), FOOTER_ENTRY_BYTES):
                identity = footer[at + _ID_AT.start : at + _ID_AT.stop]
                if identity in wanted:
                    line = memoryview(footer)[at : at + FOOTER_ENTRY_BYTES]
                    header, offset = parse_footer(line, pack_key(pack))[0]
                    locations.setdefault(identity, []).append(Location(header, pack, offset))
        return locations

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is there whole: all its layers, and the bases it needs."""
        found: dict[bytes, list[Location]] = {}
        wanted = set(ids)
        for _ in range(DEEPEST_CHAIN + 1):
            new = self.find(wanted)
            found.update(new)
            bases = {at.header.base for places in new.values() for at in places} - {NO_ID}
            wanted = bases - found.keys()
            if not wanted:
                break
        whole = _whole(found)
        return [identity in whole for identity in ids]

    def _known(self) -> dict[PackId, bytes]:
        with self._lock:
            if self._footers is None:
                self._refresh()
            assert self._footers is not None
            return self._footers

    def _refresh(self) -> None:
        listed = pack_ids(self._store)
        have = self._footers or {}
        kept = {pack: have[pack] for pack in listed if pack in have}
        missing = [pack for pack in listed if pack not in kept]
        if missing and self._cache is not None:
            kept.update(self._cache.load(missing))
            missing = [pack for pack in missing if pack not in kept]
        read: list[tuple[PackId, bytes]] = []
        with ThreadPoolExecutor(_READERS, thread_name_prefix="footers") as pool:
            for pack, footer in ordered_map(pool, self._read, missing, 2 * _READERS):
                if footer is not None:
                    read.append((pack, footer))
        kept.update(read)
        if read and self._cache is not None:
            self._cache.keep(read)
        self._footers = kept

    def _read(self, pack: PackId) -> tuple[PackId, bytes | None]:
        try:
            return pack, read_footer_bytes(self._store, pack, far=True)
        except FileNotFoundError:
            return pack, None  # joined with others since the listing
        except Corruption:
            return pack, None  # damaged there: what it holds does not count as held


class AskedHolding:
    """A store that tells what it holds, asked in pieces that it takes."""

    def __init__(self, store: Holding) -> None:
        self._store = store

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is there whole. Raises RemoteRefused."""
        found: list[bool] = []
        for batch in _batches(ids, _ASKED_AT_ONCE):
            answer = self._store.holds(batch)
            if len(answer) != len(batch):
                raise RemoteRefused(f"the remote gave {len(answer)} answers to {len(batch)} ids")
            found += answer
        return found


def holdings(store: ByteStore, cache: FooterCache | None = None) -> Holding:
    """What the other side holds: it is asked, or its footers are."""
    asked = as_holding(store)
    return Footers(store, cache) if asked is None else AskedHolding(asked)


def _batches(ids: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))


def _whole(found: dict[bytes, list[Location]]) -> set[bytes]:
    """Which of the ids have an encoding with all layers, on no base or on a whole one."""
    bases = {
        identity: {key.base for key in complete_encodings(at.header for at in places)}
        for identity, places in found.items()
    }
    whole: set[bytes] = set()
    for _ in range(DEEPEST_CHAIN + 1):
        more = {
            identity
            for identity, leaning in bases.items()
            if identity not in whole and any(base == NO_ID or base in whole for base in leaning)
        }
        if not more:
            break
        whole |= more
    return whole
