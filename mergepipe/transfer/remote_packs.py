"""The packs of another repository, read like our own: an index over their footers, kept here.

Footers never change, so an index of those of a remote is as disposable as that of the store, and
only new ones are read. Nothing in it is believed: a record counts when its bytes hash right.
"""

import contextlib
import functools
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from mergepipe.bytestore.protocol import ByteStore, Locating, NotOffered
from mergepipe.bytestore.windows import WindowStore
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import PackId, digest
from mergepipe.objects.limits import MAX_OBJECT_BYTES
from mergepipe.packs.entries import PackEntry, at_once
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import Content, RecordHeader, RecordKind, parse_footer
from mergepipe.packs.index import Index
from mergepipe.packs.keeping import ask
from mergepipe.packs.places import lacking, locate
from mergepipe.packs.reader import PREFIX, pack_key, parse_pack_key, read_footer_bytes
from mergepipe.packs.records import Location, Place
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.parallel import ordered_map

FOLDER = "remotes"
# Some half a petabyte of weights. What is listed is in memory: some 150 bytes a pack.
MOST_PACKS = 2_000_000
MOST_RECORDS = 1 << 31
_READERS = 8
_ASKED_AT_ONCE = 4096  # footers, some hundred bytes each where there are very many
# A remote lists its packs again when one is gone, which its gc does now and then: not for ever.
_MOST_REFRESHES = 4


def remote_index(name: str) -> str:
    """Where in a repository the index over the packs of a remote is."""
    return f"{FOLDER}/{name}/index"


class RemoteStorage(Storage):
    """The packs of a remote. Small reads are answered from windows of 1 MiB that were read before.

    Bounded: raises RemoteRefused for absurdly many packs or records. The remote's byte store stays
    its owner's to close.
    """

    def __init__(self, remote: ByteStore, index: Index) -> None:
        self._seeker = _RemoteKeeper(remote, index)
        super().__init__(WindowStore(remote), index, keeper=self._seeker)

    def seek(self, ids: Sequence[bytes]) -> None:
        """Have the footers of the packs where these blocks and objects are.

        From then on `refresh` looks for these alone, until a remote is met that cannot tell: of
        that all packs are listed, and all footers read. Raises RemoteUnreachable, RemoteRefused.
        """
        self._seeker.seek(ids)

    def packs_of(self, ids: Sequence[bytes]) -> list[PackId]:
        """Those that are known to hold blocks and objects, and what the blocks lean on."""
        return list(self.ask(functools.partial(locate, ids=ids))[0])


class _RemoteKeeper:
    """Keeps an index of a remote's packs, of which nothing is believed."""

    def __init__(self, remote: ByteStore, index: Index) -> None:
        self._remote = remote
        self._locating = remote if isinstance(remote, Locating) else None
        self._sought: dict[bytes, None] = {}
        self._index = index
        self._offers_footers = True
        self._refreshes = 0
        self._rebuilds = 0
        self._repairing = threading.RLock()

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def view(self) -> AbstractContextManager[View]:
        """A consistent read of the index. Raises IndexDamaged."""
        return self._index.view()

    def refresh(self) -> bool:
        """List the packs again, a few times at most; True if anything changed."""
        with self._repairing:
            if self._refreshes >= _MOST_REFRESHES:
                return False
            self._refreshes += 1
            try:
                return self._refresh()
            except IndexDamaged:
                self.rebuild()
                return True

    def seek(self, ids: Sequence[bytes]) -> None:
        """Have the footers of the packs where blocks and objects are, of all if need be."""
        with self._repairing:
            new = [identity for identity in ids if identity not in self._sought]
            if self._locating is None:
                if not self._refreshes:
                    self.refresh()
                return
            self._sought.update(dict.fromkeys(new))
            try:
                self._seek(self._locating, ask(self, functools.partial(lacking, ids=new)))
            except NotOffered:
                self._locating = None
                self.refresh()
            except IndexDamaged:
                self.rebuild()

    @property
    def rebuilds(self) -> int:
        """How often the index was made again."""
        return self._rebuilds

    def rebuild(self) -> None:
        """Make the index again from the remote's footers."""
        with self._repairing:
            self._index.reset()
            self._refresh()
            self._rebuilds += 1

    @property
    def condemned(self) -> frozenset[Place]:
        """Nothing: a record of a remote counts when its bytes hash right."""
        return frozenset()

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Not for a remote: reading all its footers again would cost more than a new index."""
        return False

    def condemn(self, damaged: Collection[Location]) -> None:
        """Nothing: the remote may mend it."""

    def note_lacking(self, lacking: bool) -> None:
        """Nothing: what a remote lacks is its owner's business."""

    def _refresh(self) -> bool:
        if self._locating is not None and self._sought:
            with contextlib.suppress(NotOffered):
                return self._seek_again(self._locating)
            self._locating = None
        present = self._list()
        indexed = set(ask(self, lambda view: view.packs()))
        gone = indexed - present.keys()
        if gone:
            self._index.drop_packs(gone)
        new = [pack for pack in present if pack not in indexed]
        self._add(new)
        return bool(gone or new)

    def _seek_again(self, locating: Locating) -> bool:
        """Look whether what was sought is where it was: the remote's gc may have joined packs."""
        known = list(ask(self, functools.partial(locate, ids=list(self._sought)))[0])
        gone = {
            pack
            for pack, footer in zip(known, locating.footers(known), strict=True)
            if footer is None and self._remote.size(pack_key(pack)) is None
        }
        if gone:
            self._index.drop_packs(gone)
        return self._seek(locating, list(self._sought)) or bool(gone)

    def _seek(self, locating: Locating, ids: Sequence[bytes]) -> bool:
        """Index the packs that the remote names for some ids; whether any was new."""
        if not ids:
            return False
        named = locating.locate(ids)
        known = ask(self, functools.partial(locate, ids=ids))[0]
        new = [pack for pack in dict.fromkeys(named) if pack not in known]
        self._add(new)
        return bool(new)

    def _add(self, packs: Sequence[PackId]) -> None:
        """Index packs of the remote; those that are gone or damaged there are passed over."""
        records = 0
        with ThreadPoolExecutor(_READERS, thread_name_prefix="footers") as pool:
            for batch in at_once(self._entries(pool, packs)):
                records += sum(len(entry.records) for entry in batch)
                if records > MOST_RECORDS:
                    raise RemoteRefused(f"the packs of the remote hold over {MOST_RECORDS} records")
                self._index.add_packs(batch)

    def _entries(self, pool: ThreadPoolExecutor, packs: Sequence[PackId]) -> Iterator[PackEntry]:
        """What packs hold: many footers in one exchange, where the remote gives them so."""
        batches = (packs[at : at + _ASKED_AT_ONCE] for at in range(0, len(packs), _ASKED_AT_ONCE))
        for batch in ordered_map(pool, self._footers, batches, _READERS):
            left = []
            for pack, footer in batch:
                if footer is None:
                    left.append(pack)
                elif (entry := _entry(pack, footer)) is not None:
                    yield entry
            for one in ordered_map(pool, self._remote_entry, left, 2 * _READERS):
                if one is not None:
                    yield one

    def _footers(self, packs: Sequence[PackId]) -> list[tuple[PackId, bytes | None]]:
        if self._offers_footers and isinstance(self._remote, Locating):
            try:
                return list(zip(packs, self._remote.footers(packs), strict=True))
            except NotOffered:
                self._offers_footers = False
        return [(pack, None) for pack in packs]

    def _list(self) -> dict[PackId, None]:
        packs: dict[PackId, None] = {}
        for count, key in enumerate(self._remote.list(PREFIX)):
            if count >= MOST_PACKS:
                raise RemoteRefused(f"the remote lists more than {MOST_PACKS:,} packs")
            pack = parse_pack_key(key)
            if pack is not None:
                packs[pack] = None
        return packs

    def _remote_entry(self, pack: PackId) -> PackEntry | None:
        """What a pack of the remote says it holds; None for one that is gone or damaged there."""
        try:
            footer = read_footer_bytes(self._remote, pack, far=True)
        except (FileNotFoundError, Corruption):
            return None
        return _entry(pack, footer)


def _entry(pack: PackId, footer: bytes) -> PackEntry | None:
    """What a footer says that a pack of the remote holds; None for one that is not its own."""
    try:
        records = parse_footer(footer, pack_key(pack))
    except Corruption:
        return None
    if digest(footer) != pack:
        return None
    sane = [(header, offset) for header, offset in records if _is_sane(header, offset)]
    objects = bool(sane) and sane[0][0].kind is RecordKind.OBJECT
    size = sum(header.stored_bytes for header, _ in records)
    return PackEntry(pack, size, Content.OBJECTS if objects else Content.BLOCKS, sane)


def _is_sane(header: RecordHeader, offset: int) -> bool:
    if offset > 1 << 62:
        return False
    return header.kind is RecordKind.BLOCK or header.raw_length <= MAX_OBJECT_BYTES
