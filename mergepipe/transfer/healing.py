"""Healing: what history here needs and lacks, copied from another store that has it.

Unlike a fetch, it begins at our own refs, not at the other side's, and takes what it gets: one lost
block is stored again although another is nowhere. Objects are compared with their ids, and blocks
decoded and compared, before they are stored, by the transaction that stores everything else.
"""

import contextlib
from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, RemoteUnreachable
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.records import Commit, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import choose
from mergepipe.packs.encoded_blocks import EncodedBlock, EncodedRecord
from mergepipe.packs.format import RECORD_HEADER_BYTES, verify_payload
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_key, read_exactly
from mergepipe.packs.records import Encoding, Location, Place
from mergepipe.packs.runs import record_in
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.closure import Use, closure
from mergepipe.repository.presence import lacking_blocks
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.refs import RefStore
from mergepipe.transfer.following import follow_pruned
from mergepipe.transfer.home import Home
from mergepipe.transfer.remote_packs import RemoteStorage, remote_index
from mergepipe.transfer.two_storages import layered


class Lacking(Struct):
    """What the refs of a repository need and is not here: as far as that can be known.

    objects   ids; what a lost object names is not known before it is there again
    blocks    ids, with their lengths in bytes
    """

    objects: set[ObjectId] = field(default_factory=set)
    blocks: dict[BlockId, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.objects or self.blocks)


class Healed(Struct, frozen=True):
    """How much was stored again."""

    objects: int = 0
    blocks: int = 0

    def __bool__(self) -> bool:
        return bool(self.objects or self.blocks)

    def __add__(self, other: "Healed") -> "Healed":
        return Healed(self.objects + other.objects, self.blocks + other.blocks)

    def __str__(self) -> str:
        counts = ((self.blocks, "block"), (self.objects, "object"))
        return " and ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in counts if n)


def heal_from_remote(
    home: Home, name: str, remote: ByteStore, progress: Progress = SILENT
) -> Healed:
    """Copy what our history lacks from the remote called `name`. Raises as a fetch does."""
    if home.storage.promises.remote == name:
        with contextlib.suppress(RemoteUnreachable):
            home.storage.promises.relist()  # what was promised, and lost, is promised again
            home.storage.refresh()
    there = RemoteStorage(remote, Index.of(home.directory, remote_index(name)))
    try:
        there.refresh()
        if home.storage.promises.remote == name:  # nothing else promises what it let go of
            follow_pruned(home, remote)
        with home.writing():
            return heal(home.storage, home.refs, there, progress)
    finally:
        there.close()


def heal(storage: Storage, refs: RefStore, source: Storage, progress: Progress) -> Healed:
    """Copy what the history of `refs` needs, and `storage` lacks, from `source`.

    What the source has not, or damaged, stays missing. `store.lock` is held.
    """
    both = layered(storage, source)
    with Transaction(storage) as transaction:
        before = ObjectStore(storage)
        objects = 0
        needed_blocks: dict[BlockId, int] = {}
        for needed in closure(
            roots(refs),
            ObjectStore(both),
            known={},
            pruned=read_pruned(storage.store),
            complain=lambda use, error: None,
        ):
            if not before.present([needed.id]):
                transaction.add_object(needed.canonical)
                objects += 1
            if isinstance(needed.record, Tensor):
                _note_blocks(needed.record, needed_blocks)
        lacking = lacking_blocks(storage, needed_blocks)
        blocks = _Copy(storage, both, transaction).run(lacking, progress)
        transaction.publish()
    return Healed(objects, blocks)


def find_lacking(storage: Storage, refs: RefStore) -> Lacking:
    """Walk the history of `refs`, and note what is not here."""
    lacking = Lacking()
    blocks: dict[BlockId, int] = {}

    def complain(use: Use, error: Corruption) -> None:
        lacking.objects.add(use.reference.id)

    for needed in closure(
        roots(refs),
        ObjectStore(storage),
        known={},
        pruned=read_pruned(storage.store),
        complain=complain,
    ):
        if isinstance(needed.record, Tensor):
            _note_blocks(needed.record, blocks)
    lacking.blocks = lacking_blocks(storage, blocks)
    return lacking


def roots(refs: RefStore) -> Iterator[Reference]:
    """The commits that refs and HEAD name; damaged refs are left out."""
    for name in refs.names():
        with contextlib.suppress(Corruption):
            tip = refs.read(name)
            if tip is not None:
                yield Reference(tip, Commit.KIND, name)
    with contextlib.suppress(Corruption):
        tip = refs.head().commit
        if tip is not None:
            yield Reference(tip, Commit.KIND, "HEAD")


def _note_blocks(tensor: Tensor, blocks: dict[BlockId, int]) -> None:
    with contextlib.suppress(Corruption):  # a tensor that cannot be is fsck's to report
        for use in blocks_of(tensor, "tensor"):
            blocks.setdefault(use.id, use.length)


class _Copy:
    """Copies encodings of blocks, as they are stored, with the bases that are missing too."""

    def __init__(self, storage: Storage, both: Storage, transaction: Transaction) -> None:
        self._storage = storage
        self._both = both
        self._reader = BlockReader(both)
        self._transaction = transaction

    def run(self, blocks: Mapping[BlockId, int], progress: Progress) -> int:
        """Copy what can be; returns how many of the blocks (with their lengths) that was."""
        progress.start("heal", sum(blocks.values()))
        copied = 0
        for block, length in blocks.items():
            copied += self._copy(block, length)
            progress.advance(length)
        return copied

    def _copy(self, block: BlockId, length: int) -> bool:
        """Copy by the first encoding that is right; False if none is."""
        avoid: set[Place] = set()
        while True:
            try:
                chosen = choose(self._both, [block], avoid, confirm=False)
            except Corruption:
                return False
            if chosen[block].raw_length != length:
                return False
            lacking = lacking_blocks(self._storage, dict.fromkeys(chosen, 0))
            encodings = {each: chosen[each] for each in lacking}
            try:
                self._reader.verify(encodings)
                copies = [self._read(each, encoding) for each, encoding in encodings.items()]
            except Corruption:
                avoid.update(place for each in encodings.values() for place in each.places)
                continue
            for copy in copies:
                self._transaction.add_block(copy)
            return True

    def _read(self, block: BlockId, encoding: Encoding) -> EncodedBlock:
        return EncodedBlock(block, encoding.raw_length, tuple(map(self._record, encoding.layers)))

    def _record(self, at: Location) -> EncodedRecord:
        """A record as it stands. Raises Corruption."""
        key = pack_key(at.pack)
        data = memoryview(read_exactly(self._both.store, key, at.offset, at.stored_bytes))
        header, payload = record_in(data, at, at.offset)
        verify_payload(header, payload, key)
        return EncodedRecord(header, bytes(data[:RECORD_HEADER_BYTES]), payload)
