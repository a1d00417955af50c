"""What an index answers while it does not change: the protocol that all who look records up see."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.packs.format import Content
from mergepipe.packs.records import Location, Place

# Of a block's record, its key and value.
LINE_BYTES = 96


class View(Protocol):
    """A consistent read of an index, or of several. Raises IndexDamaged where one is."""

    def block(self, block: BlockId, /) -> list[Location]:
        """Every record of a block, encodings together, layers in order, copies side by side."""
        ...

    def lines(self, blocks: Iterable[BlockId], /) -> bytes:
        """Every record of some blocks, those of each as `block` gives them, as the index has them.

        Key and value (docs/format.md, "LMDB index"), `LINE_BYTES` each.
        """
        ...

    def has_block(self, block: BlockId, /) -> bool:
        """Whether the block can be made from what is indexed: all layers, and its bases too."""
        ...

    def object(self, identity: ObjectId, /) -> Location | None:
        """Where an object is."""
        ...

    def object_copies(self, identity: ObjectId, /) -> list[Location]:
        """Every place where an object is."""
        ...

    def objects_with_prefix(self, prefix: bytes, limit: int, /) -> list[ObjectId]:
        """Up to `limit` object ids that begin with these bytes."""
        ...

    def blocks(self) -> Iterator[Location]:
        """Every record of every block."""
        ...

    def objects(self) -> Iterator[Location]:
        """Every record of every object."""
        ...

    def packs(self) -> dict[PackId, tuple[int, Content]]:
        """Every pack indexed, with its file length and content."""
        ...

    def pack_count(self) -> int:
        """How many packs are indexed."""
        ...

    def cached(self, key: bytes, /) -> bytes | None:
        """What was kept under a key (`Index.cache`)."""
        ...

    def condemned(self) -> frozenset[Place]:
        """Records that were found damaged, and are not listed."""
        ...
