"""Where what is made goes: blocks and objects, into a transaction, or no further than memory."""

from collections.abc import Sequence
from typing import Protocol

from mergepipe.ids import BlockId, ObjectId, object_id
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.written import WrittenPack


class Sink(Protocol):
    """Takes blocks and objects. `packs.transaction.Transaction` is one, which its owner publishes.

    Used from one thread; `has_block` from any.
    """

    @property
    def stored_bytes(self) -> int:
        """What was added to the store so far."""
        ...

    def has_block(self, block: BlockId, /) -> bool:
        """Whether the block is stored already, or was added here."""
        ...

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Take an encoded block; whether it was new."""
        ...

    def add_object(self, canonical: bytes, /) -> ObjectId:
        """Take an object; returns its id."""
        ...

    def pending_object(self, identity: ObjectId, /) -> bytes | None:
        """The canonical bytes of an object that was added here."""
        ...


class PackSink(Sink, Protocol):
    """A sink that takes blocks by the pack, too."""

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Take packs of blocks that were written together, less what is stored already."""
        ...


class ObjectsInMemory:
    """A sink that stores nothing: objects are kept in memory, and blocks not at all.

    For what is only compared, shown or named: replays, plans of a dry run, the worktree's state.
    """

    stored_bytes = 0

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}

    def has_block(self, block: BlockId, /) -> bool:
        """As if everything were stored."""
        return True

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Nothing to keep."""
        return False

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Nothing to keep."""

    def add_object(self, canonical: bytes, /) -> ObjectId:
        """Keep an object."""
        identity = object_id(canonical)
        self.objects[identity] = canonical
        return identity

    def pending_object(self, identity: ObjectId, /) -> bytes | None:
        """An object that was kept."""
        return self.objects.get(identity)
