"""Blocks that go straight to a store where nobody computes (a bucket), as their packs are finished.

The counterpart of `packs.transaction.Transaction` for blocks: packs are in place, and nothing names
them until a commit does. What is given up stays there (docs/scale-out.md, "On a shared store").
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mergepipe.bytestore.protocol import ByteStore, ByteWriter
from mergepipe.closing import Closing
from mergepipe.ids import BlockId, PackId
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import encodings
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.packs.writer import PackWriter
from mergepipe.packs.written import WrittenPack

# Each keeps a pack in a temporary file until it is sent.
_SENT_AT_ONCE = 3


class FarBlocks(Closing):
    """Collects blocks in packs of a far store.

    storage  knows what the far store has: that of a lazy clone of it
    """

    def __init__(self, store: ByteStore, storage: Storage) -> None:
        self._store = store
        self._storage = storage
        self._promised = storage.promises.promised()
        self._there: dict[PackId, bool] = {}
        self._small: PackWriter | None = None
        self._blocks: set[BlockId] = set()
        self._packs: list[PackId] = []
        self._sending: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(_SENT_AT_ONCE, thread_name_prefix="send-packs")
        self.stored_bytes = 0

    def close(self) -> None:
        """Drop what is not sent yet."""
        self._pool.shutdown(cancel_futures=True)
        if self._small is not None:
            self._small.abort()
            self._small = None

    def has_block(self, block: BlockId, /) -> bool:
        """Whether the far store has a block whole, or was sent it here."""
        return block in self._blocks or self._storage.ask(lambda view: self._is_far(view, block))

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Send a block by itself, with others of its kind; whether it was new."""
        if block.id in self._blocks:
            return False
        if self._small is None:
            self._small = PackWriter(self._store, Content.BLOCKS)
        for record in block.records:
            self._small.add_sealed(record.header, record.sealed, record.payload)
        self._blocks.add(block.id)
        self.stored_bytes += block.stored_bytes
        return True

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Take packs of blocks: those that lie here are sent, others are in place already.

        A pack is taken as it is, unless the far store has all of its blocks in others. Waits while
        many are on their way. Raises what sending raises.
        """
        listings = [{BlockId(header.id) for header, _ in pack.entry.records} for pack in packs]
        # All of them are looked at first: the layers of a block lie in one pack for each lane, and
        # the first of these says nothing of the second.
        known = [
            not pack.checked and all(map(self.has_block, listed))
            for pack, listed in zip(packs, listings, strict=True)
        ]
        for pack, listed, is_known in zip(packs, listings, known, strict=True):
            if is_known:
                continue
            if pack.writer is not None:
                self._send(pack.entry.id, pack.writer)
            self._packs.append(pack.entry.id)
            self._blocks |= listed
            self.stored_bytes += sum(header.stored_bytes for header, _ in pack.entry.records)

    def settle(self) -> None:
        """Return once all that was added is there."""
        if self._small is not None:
            entry, writer = self._small.finish()
            self._small = None
            self._send(entry.id, writer)
            self._packs.append(entry.id)
        while self._sending:
            self._sending.pop(0).result()

    def publish(self) -> list[PackId]:
        """The packs that came of it, all of them there."""
        self.settle()
        return list(self._packs)

    def _send(self, pack: PackId, writer: ByteWriter) -> None:
        while len(self._sending) >= _SENT_AT_ONCE:
            self._sending.pop(0).result()
        self._sending.append(
            self._pool.submit(self._store.publish, [(writer, pack_key(pack))]),
        )

    def _is_far(self, view: View, block: BlockId) -> bool:
        """Whether all layers of an encoding lie in packs of the far store, its bases' too."""
        return any(
            all(self._has_pack(at.pack) for at in encoding.layers)
            and (encoding.base is None or self._is_far(view, encoding.base))
            for encoding in encodings(view.block(block))
        )

    def _has_pack(self, pack: PackId) -> bool:
        """Promised packs are there; one that came here whole, or is our own, may be."""
        if pack in self._promised:
            return True
        if pack not in self._there:
            self._there[pack] = self._store.size(pack_key(pack)) is not None
        return self._there[pack]
