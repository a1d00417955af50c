"""The packs of one segment: new blocks in the order in which they are made, by lane."""

from collections.abc import Callable, Iterable

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.format import Content
from mergepipe.packs.index import PackEntry
from mergepipe.packs.transaction import Lane
from mergepipe.packs.writer import PackWriter
from mergepipe.packs.written import WrittenPack


class SegmentPacks:
    """Writes blocks into at most one pack for each lane. `knows`: blocks that are left out."""

    def __init__(self, store: ByteStore, knows: Callable[[BlockId], bool] | None = None) -> None:
        self._store = store
        self._knows = knows
        self._open: dict[Lane, PackWriter] = {}
        self._blocks: set[BlockId] = set()

    @property
    def pending_bytes(self) -> int:
        """Bytes written so far."""
        return sum(writer.size for writer in self._open.values())

    def add(self, blocks: Iterable[EncodedBlock]) -> None:
        """Append what is new of some blocks. Raises NoSpace."""
        for block in blocks:
            if block.id in self._blocks or (self._knows is not None and self._knows(block.id)):
                continue
            self._blocks.add(block.id)
            for record in block.records:
                lane = Lane.WHOLE if record.header.is_last_layer else Lane.COARSE
                if lane not in self._open:
                    self._open[lane] = PackWriter(self._store, Content.BLOCKS)
                self._open[lane].add_sealed(record.header, record.sealed, record.payload)

    def finish(self) -> tuple[WrittenPack, ...]:
        """The packs, coarse layers first; not synced yet."""
        packs = []
        for lane in sorted(self._open):
            writer = self._open[lane]
            pack, value = writer.finish()
            entry = PackEntry(pack, value.size, writer.content, tuple(writer.records))
            packs.append(WrittenPack(entry, writer=value, checked=self._knows is not None))
        self._open.clear()
        return tuple(packs)

    def abort(self) -> None:
        """Drop what is not finished."""
        for writer in self._open.values():
            writer.abort()
        self._open.clear()
