"""Objects that are kept in memory: those of plans that are only shown."""

from collections.abc import Mapping

from mergepipe.ids import BlockId, ObjectId, object_id
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.storage import Storage


class KeptObjects:
    """Takes objects, and keeps them in memory: for plans that are only shown."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}

    def has_block(self, block: BlockId, /) -> bool:
        """Blocks are not asked for: nobody reads the files of such a plan."""
        return True

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Nothing to keep."""
        return False

    def add_object(self, canonical: bytes, /) -> ObjectId:
        """Keep an object."""
        identity = object_id(canonical)
        self.objects[identity] = canonical
        return identity

    def pending_object(self, identity: ObjectId, /) -> bytes | None:
        """An object that was kept."""
        return self.objects.get(identity)


class ObjectsBeside(ObjectStore):
    """A repository's objects, and some that it does not have."""

    def __init__(self, storage: Storage, more: Mapping[ObjectId, bytes]) -> None:
        super().__init__(storage)
        self._more = more

    def canonical(self, identity: ObjectId) -> bytes:
        """The object's bytes."""
        found = self._more.get(identity)
        return super().canonical(identity) if found is None else found
