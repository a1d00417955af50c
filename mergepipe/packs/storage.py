"""One repository's packs and their index, kept in step."""

import contextlib
import errno
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MergepipeError
from mergepipe.packs.condemned import KEY, pack_places
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import verify_payload
from mergepipe.packs.index import Index
from mergepipe.packs.keeping import Keeper, OwnKeeper, ask, is_lacking
from mergepipe.packs.promises import NoPromises, Promises
from mergepipe.packs.reader import pack_key, read_exactly, read_footer
from mergepipe.packs.records import Location, Place
from mergepipe.packs.runs import record_in
from mergepipe.packs.view import View
from mergepipe.packs.wholeness import note_whole

Answer = TypeVar("Answer")


class Storage:
    """Packs in a byte store, found through an index that is repaired from them.

    promises  what of these packs may be with a remote, in a lazy clone
    keeper    keeps the index in step; that of the store's own packs where none is given
    """

    def __init__(
        self,
        store: ByteStore,
        index: Index,
        promises: Promises | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.store = store
        self.index = index
        self.promises: Promises = NoPromises() if promises is None else promises
        self._keeper: Keeper = OwnKeeper(store, index, self.promises) if keeper is None else keeper

    def close(self) -> None:
        """Close the index and the byte store."""
        self._keeper.close()
        self.store.close()

    def view(self) -> AbstractContextManager[View]:
        """A consistent read of the index. Raises IndexDamaged; `ask` repairs instead."""
        return self._keeper.view()

    def ask(self, question: Callable[[View], Answer]) -> Answer:
        """Ask the index; a damaged one is rebuilt first."""
        return ask(self._keeper, question)

    def look_up(self, question: Callable[[View], Answer | None]) -> Answer | None:
        """Ask the index; before "not there" is believed, confirm it against the packs."""
        answer = self.ask(question)
        if answer is None:
            self.refresh()
            answer = self.ask(question)
        return answer

    def refresh(self) -> bool:
        """Bring the index in step with the packs that are there; True if anything changed."""
        return self._keeper.refresh()

    def add_packs(self, packs: Sequence[PackEntry]) -> None:
        """Index packs that are in place; a damaged index is rebuilt, with them. Raises NoSpace.

        What was found damaged in a pack of the same name is replaced by it.
        """
        try:
            self.index.add_packs(packs)
        except IndexDamaged:
            self.rebuild()
        written = {pack.id for pack in packs}
        self.absolve({place for place in self.condemned if place[0] not in written})
        with contextlib.suppress(MergepipeError):
            note_whole(self.store, self.index, [pack.id for pack in packs])

    @property
    def rebuilds(self) -> int:
        """How often the index was made again: take it before a look-up, for `recover`."""
        return self._keeper.rebuilds

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Before ids are reported as being in no pack: whether the index was wrong about them.

        True: it was made again, look again.
        """
        return self._keeper.recover(missing, rebuilds)

    def rebuild(self) -> None:
        """Make the index again from the packs, less what is known to be damaged in them."""
        self._keeper.rebuild()

    # Damage

    @property
    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged: they are not listed, and wait to be replaced."""
        return self._keeper.condemned

    def condemn(self, damaged: Collection[Location]) -> None:
        """From now on, take records for missing: nothing new leans on them, a fetch brings them."""
        self._keeper.condemn(damaged)

    def absolve(self, damaged: Collection[Place]) -> None:
        """Of all records these are damaged, and no others are: all were read, or written again."""
        with contextlib.suppress(MergepipeError, PermissionError):
            if self.condemned != frozenset(damaged):
                self.index.cache([(KEY, pack_places(damaged))])
                self.rebuild()

    @property
    def lacking(self) -> bool:
        """Whether something that history needs was found missing or damaged, and not replaced yet.

        A hint for fetch, to look at all that is here; lost with the index.
        """
        return is_lacking(self._keeper)

    def note_lacking(self, lacking: bool) -> None:
        """Remember that something is missing, or that nothing is."""
        self._keeper.note_lacking(lacking)

    def is_whole(self, at: Location) -> bool:
        """Whether a record is there, and its bytes match its checksum."""
        return is_whole(self.store, at)

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


def is_whole(store: ByteStore, at: Location) -> bool:
    """Whether a record is in a store, and its bytes match its checksum."""
    key = pack_key(at.pack)
    try:
        if not at.is_plausible:
            return False
        data = memoryview(read_exactly(store, key, at.offset, at.stored_bytes))
        verify_payload(*record_in(data, at, at.offset), key)
    except (Corruption, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True
