"""One repository's packs and their index, kept in step."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import PackId
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import Content, RecordKind
from mergepipe.packs.index import Index, PackEntry, View
from mergepipe.packs.promises import NoPromises, Promises
from mergepipe.packs.reader import pack_ids, pack_key, read_footer, salvage_records
from mergepipe.packs.records import Location

Answer = TypeVar("Answer")

# Packs indexed in one transaction: bounds its size, and so the room it needs in the map.
_PACKS_AT_ONCE = 256


class Storage:
    """Packs in a byte store, found through an index that is repaired from them.

    promises  what of these packs may be with a remote, in a lazy clone
    """

    def __init__(self, store: ByteStore, index: Index, promises: Promises | None = None) -> None:
        self.store = store
        self.index = index
        self.promises: Promises = NoPromises() if promises is None else promises
        # Held while the index is brought in step: who waited for it finds it whole.
        self._repairing = threading.RLock()
        self._rebuilds = 0

    def close(self) -> None:
        """Close the index and the byte store."""
        self.index.close()
        self.store.close()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A consistent read of the index. Raises IndexDamaged; `ask` repairs instead."""
        with self.index.view() as view:
            yield view

    def ask(self, question: Callable[[View], Answer]) -> Answer:
        """Ask the index; a damaged one is rebuilt first."""
        try:
            with self.view() as view:
                return question(view)
        except IndexDamaged:
            self.rebuild()
        with self.view() as view:
            return question(view)

    def look_up(self, question: Callable[[View], Answer | None]) -> Answer | None:
        """Ask the index; before "not there" is believed, confirm it against the packs."""
        answer = self.ask(question)
        if answer is None:
            self.refresh()
            answer = self.ask(question)
        return answer

    def refresh(self) -> bool:
        """Bring the index in step with the packs that are there; True if anything changed."""
        with self._repairing:
            try:
                return self._refresh()
            except IndexDamaged:
                self.rebuild()
                return True

    def _refresh(self) -> bool:
        present = set(pack_ids(self.store))
        indexed = set(self.ask(View.packs))
        # A listing made while packs come and go may be incomplete, so each loss is looked at.
        gone = {pack for pack in indexed - present if self.store.size(pack_key(pack)) is None}
        new = sorted(present - indexed)
        if gone:
            self.index.drop_packs(gone)
        for first in range(0, len(new), _PACKS_AT_ONCE):
            batch = (self._entry(pack) for pack in new[first : first + _PACKS_AT_ONCE])
            self.index.add_packs([entry for entry in batch if entry is not None])
        return bool(gone or new)

    def add_packs(self, packs: Sequence[PackEntry]) -> None:
        """Index packs that are in place; a damaged index is rebuilt, with them. Raises NoSpace."""
        try:
            self.index.add_packs(packs)
        except IndexDamaged:
            self.rebuild()

    @property
    def rebuilds(self) -> int:
        """How often the index was made again: take it before a look-up, for `recover`."""
        return self._rebuilds

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Before ids are reported as being in no pack: look into every footer for them.

        Where one has them the index is wrong, and is rebuilt: True, look again. LMDB's pages have
        no checksums, so a record whose key is damaged seems not to be there.
        """
        with self._repairing:
            if self._rebuilds != rebuilds:
                return True  # another thread did, since the look-up
            for pack in pack_ids(self.store):
                entry = self._entry(pack)
                if entry is not None and any(header.id in missing for header, _ in entry.records):
                    self.rebuild()
                    return True
        return False

    def rebuild(self) -> None:
        """Make the index again from the packs."""
        with self._repairing:
            self.index.reset()
            self._refresh()
            self._rebuilds += 1

    def holds(self, at: Location) -> bool:
        """Whether the pack's own footer agrees that this record is there.

        False if the pack is gone; a footer that cannot be read leaves the index believed.
        """
        try:
            _, records = read_footer(self.store, at.pack)
        except FileNotFoundError:
            return False
        except Corruption:
            return True
        return (at.header, at.offset) in records

    def _entry(self, pack: PackId) -> PackEntry | None:
        """What to index of a pack; of a damaged one, the records that are whole."""
        key = pack_key(pack)
        try:
            size = self.store.size(key)
            if size is None:
                return None  # gc removed it since the listing
            try:
                content, records = read_footer(self.store, pack)
            except Corruption:
                records = list(salvage_records(self.store, pack))
                objects = bool(records) and records[0][0].kind is RecordKind.OBJECT
                content = Content.OBJECTS if objects else Content.BLOCKS
        except FileNotFoundError:
            return None
        return PackEntry(pack, size, content, records)
