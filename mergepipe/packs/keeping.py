"""An index kept in step with the packs that it is of: made again from them, and told of damage."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias, TypeVar

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.untrusted import status_of
from mergepipe.errors import Corruption, MergepipeError
from mergepipe.ids import PackId
from mergepipe.packs.condemned import KEY, pack_places
from mergepipe.packs.entries import PackEntry, at_once
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import Content, RecordKind
from mergepipe.packs.index import Index
from mergepipe.packs.promises import Promises
from mergepipe.packs.reader import PREFIX, pack_ids, pack_key, read_footer, salvage_records
from mergepipe.packs.records import Location, Place
from mergepipe.packs.view import View

Answer = TypeVar("Answer")

_LACKING = b"lacking"
# A folder's time moves in steps of some milliseconds: of one that changed so lately, no more is
# known by it.
_SETTLED_NS = 2_000_000_000
_FolderState: TypeAlias = tuple[int, int, int]


class Keeper(Protocol):
    """What a `Storage` asks of who keeps its index: of its own packs, a remote's, or of both."""

    @property
    def rebuilds(self) -> int:
        """How often the index was made again: take it before a look-up, for `recover`."""
        ...

    @property
    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged: they are not listed, and wait to be replaced."""
        ...

    def view(self) -> AbstractContextManager[View]:
        """A consistent read of the index. Raises IndexDamaged."""
        ...

    def refresh(self) -> bool:
        """Bring the index in step with the packs that are there; True if anything changed."""
        ...

    def rebuild(self) -> None:
        """Make the index again from the packs."""
        ...

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Before ids are reported as being in no pack: whether it was the index that was wrong."""
        ...

    def condemn(self, damaged: Collection[Location]) -> None:
        """From now on, take records for missing."""
        ...

    def note_lacking(self, lacking: bool) -> None:
        """Remember that something is missing, or that nothing is."""
        ...

    def close(self) -> None:
        """Close the index, if it is the keeper's."""
        ...


class OwnKeeper:
    """Keeps the index of a store's own packs. May be used from any thread."""

    def __init__(self, store: ByteStore, index: Index, promises: Promises) -> None:
        self._store = store
        self._index = index
        self._promises = promises
        # Held while the index is brought in step: who waited for it finds it whole.
        self._repairing = threading.RLock()
        self._rebuilds = 0
        self._in_step: _FolderState | None = None

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def view(self) -> AbstractContextManager[View]:
        """A consistent read of the index. Raises IndexDamaged."""
        return self._index.view()

    def refresh(self) -> bool:
        """Bring the index in step with the packs that are there; True if anything changed."""
        with self._repairing:
            try:
                return self._refresh()
            except IndexDamaged:
                self.rebuild()
                return True

    def _refresh(self) -> bool:
        state = self._folder_state()
        if state is not None and state == self._in_step:
            return False
        present = set(pack_ids(self._store))
        indexed = set(ask(self, lambda view: view.packs()))
        # A listing made while packs come and go may be incomplete, so each loss is looked at.
        gone = {pack for pack in indexed - present if self._store.size(pack_key(pack)) is None}
        new = sorted(present - indexed)
        if gone:
            # gc lists its packs no more before it removes them: somebody else took these.
            self._index.drop_packs(gone)
            self.note_lacking(True)
        self._add(new)
        # What was indexed just now may be less than all: a pack can be gone again, or damaged.
        self._in_step = None if gone or new else state
        return bool(gone or new)

    def _folder_state(self) -> _FolderState | None:
        """What differs once packs came or went, or the index is another; None: nobody can tell."""
        if not isinstance(self._store, LocalByteStore):
            return None
        status = status_of(self._store.folder(PREFIX))
        if status is None or time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
            return None
        count = ask(self, lambda view: view.pack_count())
        return status.st_ino, status.st_mtime_ns, count

    @property
    def rebuilds(self) -> int:
        """How often the index was made again."""
        return self._rebuilds

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Look into every footer for ids that seem to be in no pack.

        Where one has them the index is wrong, and is rebuilt: True, look again. LMDB's pages have
        no checksums, so a record whose key is damaged seems not to be there.
        """
        with self._repairing:
            if self._rebuilds != rebuilds:
                return True  # another thread did, since the look-up
            condemned = self.condemned
            for pack in pack_ids(self._store):
                entry = self._entry(pack, condemned)
                if entry is not None and any(header.id in missing for header, _ in entry.records):
                    self.rebuild()
                    return True
        return False

    def rebuild(self) -> None:
        """Make the index again from the packs, less what is known to be damaged in them."""
        with self._repairing:
            kept = [
                (KEY, pack_places(self.condemned)),
                (_LACKING, b"1" if is_lacking(self) else b""),
            ]
            self._index.reset()
            self._index.cache(kept)
            self._refresh()
            self._rebuilds += 1

    @property
    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged."""
        try:
            with self.view() as view:
                return view.condemned()
        except IndexDamaged:
            return frozenset()

    def condemn(self, damaged: Collection[Location]) -> None:
        """From now on, take records for missing: nothing new leans on them, a fetch brings them.

        Not those that a lazy clone was promised, which come again by themselves. Where the index
        may not be written, the next who reads them finds out again.
        """
        promised = self._promises.promised()
        damaged = [at for at in damaged if at.pack not in promised]
        with contextlib.suppress(MergepipeError, PermissionError):
            if damaged:
                self._index.condemn(damaged)

    def note_lacking(self, lacking: bool) -> None:
        """Remember that something is missing, or that nothing is; lost with the index."""
        with contextlib.suppress(MergepipeError, PermissionError):
            if lacking != is_lacking(self):
                self._index.cache([(_LACKING, b"1" if lacking else b"")])

    def _add(self, packs: Iterable[PackId]) -> None:
        """Index packs; those that are gone are passed over."""
        condemned = self.condemned
        entries = (self._entry(pack, condemned) for pack in packs)
        there = (entry for entry in entries if entry is not None)
        for batch in at_once(there):
            self._index.add_packs(batch)

    def _entry(self, pack: PackId, condemned: Collection[Place]) -> PackEntry | None:
        """What to index of a pack; of a damaged one, the records that are whole."""
        key = pack_key(pack)
        try:
            size = self._store.size(key)
            if size is None:
                return None  # gc removed it since the listing
            try:
                content, records = read_footer(self._store, pack)
            except Corruption:
                records = list(salvage_records(self._store, pack))
                objects = bool(records) and records[0][0].kind is RecordKind.OBJECT
                content = Content.OBJECTS if objects else Content.BLOCKS
        except FileNotFoundError:
            return None
        records = [record for record in records if (pack, record[1]) not in condemned]
        return PackEntry(pack, size, content, records)


def ask(keeper: Keeper, question: Callable[[View], Answer]) -> Answer:
    """Ask an index; a damaged one is rebuilt first."""
    try:
        with keeper.view() as view:
            return question(view)
    except IndexDamaged:
        keeper.rebuild()
    with keeper.view() as view:
        return question(view)


def is_lacking(keeper: Keeper) -> bool:
    """Whether something that history needs was found missing or damaged, and not replaced yet."""
    try:
        with keeper.view() as view:
            return bool(view.cached(_LACKING)) or bool(view.condemned())
    except IndexDamaged:
        return False
