"""What one commit, merge or fetch adds to the store: nothing is visible before `publish`."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mergepipe.bytestore.local_writer import LocalWriter
from mergepipe.bytestore.protocol import ByteStore, ByteWriter
from mergepipe.closing import Dropping
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, ObjectId, PackId, object_id
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_object
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import parse_record
from mergepipe.packs.open_packs import Lane, OpenPacks
from mergepipe.packs.presence import Presence
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.writer import PackWriter
from mergepipe.packs.written import WrittenPack

PACK_BYTES = 256 << 20


class Transaction(Dropping):
    """Collects blocks and objects; `publish` makes them durable and visible, in that order.

    Make it once `store.lock` is held: what the store has is then safe from gc. Used from one
    thread. Leaving the context without `publish` drops everything.
    """

    def __init__(
        self, storage: Storage, pack_bytes: int = PACK_BYTES, presence: Presence | None = None
    ) -> None:
        self._storage = storage
        self.presence = Presence(storage) if presence is None else presence
        self._pack_bytes = pack_bytes
        self._open = OpenPacks(storage.store)
        self._finished: list[tuple[PackEntry, ByteWriter]] = []
        self._syncing: list[Future[None]] = []
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="pack-sync")
        self._blocks: set[BlockId] = set()
        self._objects: dict[ObjectId, bytes] = {}
        self.stored_bytes = 0
        self.new_blocks = 0
        storage.refresh()

    @property
    def store(self) -> ByteStore:
        """The files of the repository."""
        return self._storage.store

    def has_block(self, block: BlockId) -> bool:
        """Whether the block is in the store, whole, or in this transaction."""
        return block in self._blocks or self.presence.blocks([block])[0]

    def holds(self, block: BlockId) -> bool:
        """Whether the block was added here."""
        return block in self._blocks

    def add_block(self, block: EncodedBlock) -> bool:
        """Append a block's records, unless this transaction has it; whether it was appended."""
        if block.id in self._blocks:
            return False
        for record in block.records:
            lane = Lane.of(record.header)
            self._open.writer(lane).add_sealed(record.header, record.sealed, record.payload)
            self._close_if_full(lane)
        self._blocks.add(block.id)
        self.stored_bytes += block.stored_bytes
        self.new_blocks += 1
        return True

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Take over packs of blocks that were written together, beside this transaction.

        A block that is here already is left out, in all its layers: its pack is then written again
        without it, as it would have been by who can look that up. Raises Corruption.
        """
        listed = {BlockId(header.id) for pack in packs for header, _ in pack.entry.records}
        here: set[BlockId] = set()
        if not all(pack.checked for pack in packs):
            asked = list(listed)
            stored = self.presence.blocks(asked)
            here = {block for block, have in zip(asked, stored, strict=True) if have}
            here |= listed & self._blocks
        for pack in packs:
            if any(header.id in here for header, _ in pack.entry.records):
                pack = self._without(pack, here)
            if pack.writer is not None:
                self._keep(pack.entry, pack.writer)
                self.stored_bytes += sum(record.stored_bytes for record, _ in pack.entry.records)
        self._blocks |= listed
        self.new_blocks += len(listed - here)

    def add_object(self, canonical: bytes) -> ObjectId:
        """Append an object, unless the store has it; returns its id."""
        identity = object_id(canonical)
        if identity in self._objects:
            return identity
        if self.presence.object(identity):
            return identity
        header, payload = encode_object(canonical)
        self._open.writer(Lane.OBJECTS).add(header, payload)
        self._close_if_full(Lane.OBJECTS)
        self._objects[identity] = canonical
        self.stored_bytes += header.stored_bytes
        return identity

    def pending_object(self, identity: ObjectId) -> bytes | None:
        """The canonical bytes of an object added here."""
        return self._objects.get(identity)

    def settle(self) -> None:
        """Make all blocks added so far durable, while no lock is held.

        Objects stay in one open pack: the commit, made under the lock, joins what it names.
        """
        self._finish_all(lane for lane in self._open.lanes if lane is not Lane.OBJECTS)

    def publish(self) -> list[PackId]:
        """Make everything visible: blocks before the objects that name them, then the index.

        Returns the packs that came of it.
        """
        self._finish_all(self._open.lanes)
        ordered = sorted(self._finished, key=lambda pack: pack[0].content)
        self._storage.store.publish([(value, pack_key(entry.id)) for entry, value in ordered])
        entries = [entry for entry, _ in ordered]
        self._finished.clear()
        if entries:
            self._storage.add_packs(entries)
        self._syncer.shutdown()
        return [entry.id for entry in entries]

    def abort(self) -> None:
        """Drop everything that was not published."""
        self._open.abort()
        self._syncer.shutdown(cancel_futures=True)
        for _, value in self._finished:
            value.abort()
        self._finished.clear()

    def _close_if_full(self, lane: Lane) -> None:
        if self._open.is_full(lane, self._pack_bytes):
            self._keep(*self._open.finish(lane))

    def _finish_all(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._keep(*self._open.finish(lane))
        for future in self._syncing:
            future.result()
        self._syncing.clear()

    def _keep(self, entry: PackEntry, value: ByteWriter) -> None:
        self._finished.append((entry, value))
        self._syncing.append(self._syncer.submit(value.sync))

    def _without(self, pack: WrittenPack, blocks: set[BlockId]) -> WrittenPack:
        """A pack written again, less some blocks; without a writer if nothing is left."""
        old = pack.writer
        assert isinstance(old, LocalWriter)
        records = [record for record in pack.entry.records if record[0].id not in blocks]
        try:
            if not records:
                return WrittenPack(pack.entry)
            writer = PackWriter(self._storage.store, pack.entry.content)
            try:
                with old.path.open("rb") as file:
                    for header, offset in records:
                        file.seek(offset)
                        data = file.read(header.stored_bytes)
                        if parse_record(data, str(old.path)) != header:
                            raise Corruption(f"{old.path} is not what was written")
                        writer.add_copy(header, data)
                entry, value = writer.finish()
            except BaseException:
                writer.abort()
                raise
        finally:
            old.abort()
        return WrittenPack(entry, writer=value)
