"""Blocks as a worker reads them: no index tells it where they are, so items do."""

from collections.abc import Iterable, Mapping, Sequence

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore, expect
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import NeedsRepair
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader, read_chosen
from mergepipe.packs.records import Encoding


class PlacedBlocks:
    """Reads blocks of a store by the encodings that items name. Used from one thread."""

    def __init__(self, store: ByteStore) -> None:
        self.store = _Counted(store)
        self.workspace = Workspace()

    def read(self, blocks: Sequence[BlockId], ways: Mapping[BlockId, Encoding]) -> list[memoryview]:
        """The raw bytes of each block, in order, each compared with its id. Raises NeedsRepair."""
        try:
            return read_chosen(self.store, ways, blocks, self.workspace)
        except (Corruption, KeyError) as error:
            raise NeedsRepair(str(error)) from None

    def readings(self) -> Readings:
        """What was read so far."""
        return self.store.readings()


def ways_to(reader: BlockReader, blocks: Iterable[BlockId]) -> Mapping[BlockId, Encoding]:
    """How to read blocks, for an item; of those that are damaged or missing: nothing.

    What then happens to them is for who has the index to say.
    """
    wanted = list(dict.fromkeys(blocks))
    try:
        return reader.resolve(wanted)
    except Corruption:
        return {}


class _Counted(ForwardingStore):
    """A store whose reads are counted."""

    def __init__(self, store: ByteStore) -> None:
        super().__init__(store)
        self._bytes = self._reads = 0

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """As the store below, counted."""
        read = self._store.read_into(key, offset, out)
        self._bytes += read
        self._reads += 1
        return read

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """As the store below."""
        expect(self._store, ranges)

    def readings(self) -> Readings:
        """All that was read, by whoever it is."""
        return Readings(metadata_bytes=self._bytes, reads=self._reads)
