"""One repository's packs and their index, kept in step."""

import contextlib
import errno
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MergepipeError
from mergepipe.ids import PackId
from mergepipe.packs.condemned import KEY, pack_places
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import Content, RecordKind, verify_payload
from mergepipe.packs.index import Index, PackEntry
from mergepipe.packs.promises import NoPromises, Promises
from mergepipe.packs.reader import (
    pack_ids,
    pack_key,
    read_exactly,
    read_footer,
    salvage_records,
)
from mergepipe.packs.records import Location, Place
from mergepipe.packs.runs import record_in
from mergepipe.packs.view import View

Answer = TypeVar("Answer")

# Packs indexed in one transaction: bounds its size, and so the room it needs in the map.
_PACKS_AT_ONCE = 256
_LACKING = b"lacking"


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
        indexed = set(self.ask(lambda view: view.packs()))
        # A listing made while packs come and go may be incomplete, so each loss is looked at.
        gone = {pack for pack in indexed - present if self.store.size(pack_key(pack)) is None}
        new = sorted(present - indexed)
        if gone:
            # gc lists its packs no more before it removes them: somebody else took these.
            self.index.drop_packs(gone)
            self.note_lacking(True)
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
        """Make the index again from the packs, less what is known to be damaged in them."""
        with self._repairing:
            kept = [(KEY, pack_places(self.condemned)), (_LACKING, b"1" if self.lacking else b"")]
            self.index.reset()
            self.index.cache(kept)
            self._refresh()
            self._rebuilds += 1

    # Damage

    @property
    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged: they are not listed, and wait to be replaced."""
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
        promised = self.promises.promised()
        damaged = [at for at in damaged if at.pack not in promised]
        with contextlib.suppress(MergepipeError, PermissionError):
            if damaged:
                self.index.condemn(damaged)

    def absolve(self, damaged: Collection[Place]) -> None:
        """All data was read: these records are damaged, and no others are."""
        with contextlib.suppress(MergepipeError, PermissionError):
            if self.condemned != frozenset(damaged):
                self.index.cache([(KEY, pack_places(damaged))])
                self.rebuild()

    @property
    def lacking(self) -> bool:
        """Whether something that history needs was found missing or damaged, and not replaced yet.

        A hint for fetch, to look at all that is here; lost with the index.
        """
        try:
            with self.view() as view:
                return bool(view.cached(_LACKING)) or bool(view.condemned())
        except IndexDamaged:
            return False

    def note_lacking(self, lacking: bool) -> None:
        """Remember that something is missing, or that nothing is."""
        with contextlib.suppress(MergepipeError, PermissionError):
            if lacking != self.lacking:
                self.index.cache([(_LACKING, b"1" if lacking else b"")])

    def is_whole(self, at: Location) -> bool:
        """Whether a record is there, and its bytes match its checksum."""
        key = pack_key(at.pack)
        try:
            if not at.is_plausible:
                return False
            data = memoryview(read_exactly(self.store, key, at.offset, at.stored_bytes))
            verify_payload(*record_in(data, at, at.offset), key)
        except (Corruption, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return True

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
        condemned = self.condemned
        records = [record for record in records if (pack, record[1]) not in condemned]
        return PackEntry(pack, size, content, records)
