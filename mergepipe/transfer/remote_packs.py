"""The packs of another repository, read like our own: an index over their footers, kept here.

Footers never change, so an index of those of a remote is as disposable as that of the store, and
only new ones are read. Nothing in it is believed: a record counts when its bytes hash right.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import PackId
from mergepipe.objects.limits import MAX_OBJECT_BYTES
from mergepipe.packs.entries import PackEntry, at_once
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import Content, RecordHeader, RecordKind, parse_footer
from mergepipe.packs.index import Index
from mergepipe.packs.keeping import ask
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
_WINDOW_BYTES = 1 << 20
_WINDOWS = 64
# A remote lists its packs again when one is gone, which its gc does now and then: not for ever.
_MOST_REFRESHES = 4


def remote_index(name: str) -> str:
    """Where in a repository the index over the packs of a remote is."""
    return f"{FOLDER}/{name}/index"


def remote_storage(remote: ByteStore, index: Index) -> Storage:
    """The packs of a remote. Small reads are answered from windows of 1 MiB that were read before.

    Bounded: raises RemoteRefused for absurdly many packs or records. The remote's byte store stays
    its owner's to close.
    """
    return Storage(_ReadAhead(remote), index, keeper=_RemoteKeeper(remote, index))


class _RemoteKeeper:
    """Keeps an index of a remote's packs, of which nothing is believed."""

    def __init__(self, remote: ByteStore, index: Index) -> None:
        self._remote = remote
        self._index = index
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
        present = self._list()
        indexed = set(ask(self, lambda view: view.packs()))
        gone = indexed - present.keys()
        if gone:
            self._index.drop_packs(gone)
        new = [pack for pack in present if pack not in indexed]
        records = 0
        with ThreadPoolExecutor(_READERS, thread_name_prefix="footers") as pool:
            entries = (
                entry
                for entry in ordered_map(pool, self._remote_entry, new, 2 * _READERS)
                if entry is not None
            )
            for batch in at_once(entries):
                records += sum(len(entry.records) for entry in batch)
                if records > MOST_RECORDS:
                    raise RemoteRefused(f"the packs of the remote hold over {MOST_RECORDS} records")
                self._index.add_packs(batch)
        return bool(gone or new)

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
        key = pack_key(pack)
        try:
            records = parse_footer(read_footer_bytes(self._remote, pack, far=True), key)
        except (FileNotFoundError, Corruption):
            return None
        sane = [(header, offset) for header, offset in records if _is_sane(header, offset)]
        objects = bool(sane) and sane[0][0].kind is RecordKind.OBJECT
        size = sum(header.stored_bytes for header, _ in records)
        return PackEntry(pack, size, Content.OBJECTS if objects else Content.BLOCKS, sane)


def _is_sane(header: RecordHeader, offset: int) -> bool:
    if offset > 1 << 62:
        return False
    return header.kind is RecordKind.BLOCK or header.raw_length <= MAX_OBJECT_BYTES


class _ReadAhead(ForwardingStore):
    """A byte store whose small reads are cut out of larger ones: objects lie side by side."""

    def __init__(self, store: ByteStore) -> None:
        super().__init__(store)
        self._windows: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget what was read; the store is another's."""
        self._windows.clear()

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        if len(out) > _WINDOW_BYTES:
            return self._store.read_into(key, offset, out)
        done = 0
        while done < len(out):
            number, begin = divmod(offset + done, _WINDOW_BYTES)
            window = self._window(key, number)
            piece = window[begin : begin + len(out) - done]
            if not piece:
                break
            out[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def _window(self, key: str, number: int) -> bytes:
        with self._lock:
            if (key, number) in self._windows:
                self._windows.move_to_end((key, number))
                return self._windows[key, number]
        data = bytearray(_WINDOW_BYTES)
        count = self._store.read_into(key, number * _WINDOW_BYTES, memoryview(data))
        window = bytes(data[:count])
        with self._lock:
            self._windows[key, number] = window
            while len(self._windows) > _WINDOWS:
                self._windows.popitem(last=False)
        return window
