"""Two storages read as one: what the first does not have whole is looked for in the second too.

So objects, blocks and closures over "here and quarantined", or "here and there", are read by the
same code as those of one repository.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NoReturn

from mergepipe.bytestore.protocol import Buffer, ByteStore, ByteWriter
from mergepipe.closing import Closing
from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.packs.choice import DEEPEST_CHAIN
from mergepipe.packs.format import Content
from mergepipe.packs.records import Location, Place, encodings
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View


def layered(first: Storage, second: Storage) -> Storage:
    """`first` before `second`. Read only: what is written goes to one of them."""
    store = _EitherStore(first.store, second.store)
    return Storage(store, first.index, keeper=_BothKeepers(first, second))


class _BothKeepers:
    """Keeps the indexes of two storages, which belong to others."""

    def __init__(self, first: Storage, second: Storage) -> None:
        self._layers = (first, second)
        self._rebuilds = 0

    def close(self) -> None:
        """Nothing: the two belong to others."""

    @property
    def rebuilds(self) -> int:
        """How often both were made again."""
        return self._rebuilds

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A consistent read of each index. Raises IndexDamaged."""
        first, second = self._layers
        with first.view() as here, second.view() as there:
            yield LayeredView(here, there)

    def refresh(self) -> bool:
        """Bring both in step with their packs; True if anything changed."""
        changed = [layer.refresh() for layer in self._layers]
        return any(changed)

    def recover(self, missing: Collection[bytes], rebuilds: int) -> bool:
        """Whether an index of the two was wrong about any of these ids, and is right now."""
        recovered = [layer.recover(missing, layer.rebuilds) for layer in self._layers]
        return any(recovered)

    @property
    def condemned(self) -> frozenset[Place]:
        """What was found damaged in the first."""
        return self._layers[0].condemned

    def condemn(self, damaged: Collection[Location]) -> None:
        """Those of the first layer; what a stranger sent, or has, is his."""
        packs = self._layers[0].ask(lambda view: view.packs())
        self._layers[0].condemn([at for at in damaged if at.pack in packs])

    def note_lacking(self, lacking: bool) -> None:
        """Nothing: to be without what the other side has is no damage."""

    def rebuild(self) -> None:
        """Make both again from their packs."""
        for layer in self._layers:
            layer.rebuild()
        self._rebuilds += 1


class LayeredView:
    """The records of two views; of a block that the first has whole, its own only."""

    def __init__(self, first: View, second: View) -> None:
        self._first = first
        self._second = second

    def block(self, block: BlockId) -> list[Location]:
        """Every record of a block that may be read."""
        locations = self._first.block(block)
        if locations and self._first.has_block(block):
            return locations
        return locations + self._second.block(block)

    def lines(self, blocks: Iterable[BlockId]) -> bytes:
        """Every record of some blocks: of one that both have parts of, those of both."""
        views = (self._first, self._second)
        return b"".join(view.lines([block]) for block in blocks for view in views)

    def _has_block(self, block: BlockId, depth: int) -> bool:
        return any(
            way.base is None or (depth > 0 and self._has_block(way.base, depth - 1))
            for way in encodings(self.block(block))
        )

    def has_block(self, block: BlockId) -> bool:
        """Whether the block can be made from both together."""
        return self._has_block(block, DEEPEST_CHAIN)

    def object(self, identity: ObjectId) -> Location | None:
        """Where an object is."""
        copies = self.object_copies(identity)
        return copies[0] if copies else None

    def object_copies(self, identity: ObjectId) -> list[Location]:
        """Every place where an object is."""
        return self._first.object_copies(identity) or self._second.object_copies(identity)

    def objects_with_prefix(self, prefix: bytes, limit: int) -> list[ObjectId]:
        """Up to `limit` object ids that begin with these bytes."""
        identities = {
            *self._first.objects_with_prefix(prefix, limit),
            *self._second.objects_with_prefix(prefix, limit),
        }
        return sorted(identities)[:limit]

    def blocks(self) -> Iterator[Location]:
        """Every record of every block."""
        yield from self._first.blocks()
        yield from self._second.blocks()

    def objects(self) -> Iterator[Location]:
        """Every record of every object."""
        yield from self._first.objects()
        yield from self._second.objects()

    def packs(self) -> dict[PackId, tuple[int, Content]]:
        """Every pack, with its file length and content."""
        return self._second.packs() | self._first.packs()

    def pack_count(self) -> int:
        """How many packs there are, those twice that both have."""
        return self._first.pack_count() + self._second.pack_count()

    def cached(self, key: bytes) -> bytes | None:
        """What the first keeps under a key."""
        return self._first.cached(key)

    def condemned(self) -> frozenset[Place]:
        """What was found damaged in the first."""
        return self._first.condemned()


class _EitherStore(Closing):
    """Values of the first store, then of the second. Nothing is written through it."""

    def __init__(self, first: ByteStore, second: ByteStore) -> None:
        self._stores = (first, second)

    def close(self) -> None:
        """Nothing: the stores belong to others."""

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        return next(
            (value for store in self._stores if (value := store.get(key)) is not None), None
        )

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        first, second = self._stores
        try:
            return first.read_into(key, offset, out)
        except FileNotFoundError:
            try:
                return second.read_into(key, offset, out)
            except FileNotFoundError:
                # It may have gone from the second to the first meanwhile: admission moves packs.
                return first.read_into(key, offset, out)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        first, second = self._stores
        for store in (first, second, first):
            if (bytes_there := store.size(key)) is not None:
                return bytes_there
        return None

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under a folder, sorted."""
        first, second = self._stores
        return iter(sorted({*first.list(prefix), *second.list(prefix)}))

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones."""
        first, second = self._stores
        return dict(sorted((second.values(prefix) | first.values(prefix)).items()))

    def create(self) -> ByteWriter:
        """Not here."""
        _read_only()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Not here."""
        _read_only()

    def put(self, key: str, value: Buffer) -> None:
        """Not here."""
        _read_only()

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Not here."""
        _read_only()

    def delete(self, key: str) -> None:
        """Not here."""
        _read_only()


def _read_only() -> NoReturn:
    raise RuntimeError("layered stores are only read")
