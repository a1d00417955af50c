"""Whether what is stored may be leaned on: not only listed in the index, but whole on the disk.

Who adds to a store leaves out what is there. So that a commit that succeeds can be read, what it
leaves out is read first, as it is stored, and compared with its checksum: much less than to read
the files that are committed. What turns out damaged is condemned, and so stored again.
"""

import threading
from collections.abc import Iterable, Sequence

from mergepipe.ids import BlockId, ObjectId
from mergepipe.packs.choice import cheapest, stored_encodings
from mergepipe.packs.records import Location, Place
from mergepipe.packs.storage import Storage


class Presence:
    """What one operation found whole, each record read once. May be used from any thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # What a lazy clone has not got yet is the remote's to have whole.
        self._promised = storage.promises.promised()
        self._whole: set[Place] = set()
        self._condemning = threading.Lock()
        self.damaged: set[Place] = set()
        """Records that were condemned on the way."""

    def blocks(self, blocks: Sequence[BlockId]) -> list[bool]:
        """Which of these blocks can be read, and all that they lean on."""
        listed = self._storage.ask(lambda view: [view.has_block(block) for block in blocks])
        wanted = [block for block, have in zip(blocks, listed, strict=True) if have]
        while wanted:
            rebuilds = self._storage.rebuilds
            options = stored_encodings(self._storage, wanted, confirm=False)
            chosen = cheapest(wanted, options)
            bad = self._damaged(at for way in chosen.values() for at in way.layers)
            if not bad and self._storage.rebuilds == rebuilds:
                return [block in chosen for block in blocks]
            self._condemn(bad)
        return listed

    def object(self, identity: ObjectId) -> bool:
        """Whether an object can be read."""
        copies = self._storage.ask(lambda view: view.object_copies(identity))
        bad = []
        for at in copies:
            if not self._damaged([at]):
                break
            bad.append(at)
        self._condemn(bad)
        return len(bad) < len(copies)

    def _damaged(self, records: Iterable[Location]) -> list[Location]:
        bad: list[Location] = []
        for at in records:
            if at.place in self._whole or at.pack in self._promised:
                continue
            if self._storage.is_whole(at):
                self._whole.add(at.place)
            elif self._storage.holds(at):
                bad.append(at)
            else:  # it is the index that is wrong
                self._storage.rebuild()
        return bad

    def _condemn(self, bad: Sequence[Location]) -> None:
        if bad:
            with self._condemning:
                self._storage.condemn(bad)
                self.damaged.update(at.place for at in bad)
