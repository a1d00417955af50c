"""A merge whose blocks go to the store that a lazy clone leans on, and not into the clone.

Workers read there and write there; the clone keeps objects, and the frames of the new packs
(docs/scale-out.md, "On a shared store").
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeAlias

from msgspec import Struct

from mergepipe.bytestore.ahead import AheadStore
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.near_first import NearFirst
from mergepipe.bytestore.protocol import ByteStore, NoTurn, Turn, writing_to
from mergepipe.engine.transactions import Transactions
from mergepipe.executors.places import BucketPlace, FilesPlace
from mergepipe.executors.segments import Place
from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.far_blocks import FarBlocks
from mergepipe.packs.reader import pack_ids
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.packs.written import WrittenPack


class Blocks(Protocol):
    """Where blocks are collected: a transaction of the other repository, or a bucket."""

    @property
    def stored_bytes(self) -> int:
        """What was added so far."""
        ...

    def has_block(self, block: BlockId, /) -> bool:
        """Whether the shared store has a block."""
        ...

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Take a block; whether it was new."""
        ...

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Take packs, less what the shared store has."""
        ...

    def settle(self) -> None:
        """Make durable what was added."""
        ...

    def publish(self) -> list[PackId]:
        """Have it in place; returns the packs."""
        ...


class SharedStore(Struct, frozen=True):
    """An open shared store, while a merge writes to it.

    source, target  where workers read, and write
    reading         the same from here: what the clone has is read in the clone
    store           where packs are written from here
    files           whose unpublished packs are taken over, where it is a directory
    listed          the packs that the clone may have to be told of, given those that are new
    turn            keeps gc of a bucket out; a directory's waits for the transaction
    """

    source: Place
    target: Place
    reading: ByteStore
    store: ByteStore
    blocks: Blocks
    files: LocalByteStore | None
    listed: Callable[[Sequence[PackId]], Sequence[PackId]]
    turn: Turn


OpenShared: TypeAlias = Callable[[], AbstractContextManager[SharedStore | None]]
"""Opens the shared store for a merge; None where blocks go where they always go."""


@contextmanager
def shared_directory(transactions: Transactions, storage: Storage) -> Iterator[SharedStore]:
    """The repository of `transactions`, on this machine or a shared file system.

    Its `store.lock` is held, shared, and a lease is taken in it; `storage` is the lazy clone's.
    """
    files = transactions.files
    with transactions.begin() as blocks:
        path = str(files.root.resolve())
        yield SharedStore(
            source=FilesPlace(path),
            target=FilesPlace(path, files.session),
            reading=NearFirst(storage.store, files, storage.promises.has_range),
            store=files,
            blocks=blocks,
            files=files,
            # What was left out as known may lie in packs that came since the clone last looked.
            listed=lambda new: pack_ids(files),
            turn=NoTurn(),
        )


@contextmanager
def shared_bucket(place: BucketPlace, bucket: ByteStore, storage: Storage) -> Iterator[SharedStore]:
    """A bucket, which is closed in the end; `storage` is the lazy clone's.

    gc of the bucket waits meanwhile. Raises Locked while it is at work.
    """
    with (
        AheadStore(bucket) as store,
        writing_to(bucket, "merge") as turn,
        FarBlocks(store, storage) as blocks,
    ):
        yield SharedStore(
            source=place,
            target=place,
            reading=NearFirst(storage.store, store, storage.promises.has_range),
            store=store,
            blocks=blocks,
            files=None,
            listed=lambda new: new,
            turn=turn,
        )


class SharedSink:
    """Objects into the clone, blocks into the shared store."""

    def __init__(self, transaction: Transaction, shared: SharedStore, storage: Storage) -> None:
        self._transaction = transaction
        self._shared = shared
        self._storage = storage

    @property
    def stored_bytes(self) -> int:
        """What was stored, here and there."""
        return self._transaction.stored_bytes + self._shared.blocks.stored_bytes

    def has_block(self, block: BlockId, /) -> bool:
        """Whether the shared store has a block, or was given it here."""
        return self._shared.blocks.has_block(block)

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Give the shared store a block."""
        return self._shared.blocks.add_block(block)

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Give the shared store packs."""
        self._shared.blocks.add_packs(packs)

    def add_object(self, canonical: bytes, /) -> ObjectId:
        """Keep an object in the clone."""
        return self._transaction.add_object(canonical)

    def pending_object(self, identity: ObjectId, /) -> bytes | None:
        """An object that was added here."""
        return self._transaction.pending_object(identity)

    def settle(self) -> None:
        """Make durable what was added, while no lock is held."""
        self._shared.blocks.settle()
        self._transaction.settle()

    def publish_blocks(self) -> None:
        """Have the blocks in place, and the clone know of them: before the commit names them."""
        packs = self._shared.blocks.publish()
        self._shared.turn.check()
        self._storage.promises.promise(self._shared.store, self._shared.listed(packs))
        self._storage.refresh()
