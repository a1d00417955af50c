"""The packs of one segment: new blocks in the order in which they are made, by lane."""

from collections.abc import Callable, Iterable

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.open_packs import Lane, OpenPacks
from mergepipe.packs.written import WrittenPack


class SegmentPacks:
    """Writes blocks into at most one pack for each lane. `knows`: blocks that are left out."""

    def __init__(self, store: ByteStore, knows: Callable[[BlockId], bool] | None = None) -> None:
        self._knows = knows
        self._open = OpenPacks(store)
        self._blocks: set[BlockId] = set()

    @property
    def pending_bytes(self) -> int:
        """Bytes written so far."""
        return self._open.size

    def add(self, blocks: Iterable[EncodedBlock]) -> None:
        """Append what is new of some blocks. Raises NoSpace."""
        for block in blocks:
            if block.id in self._blocks or (self._knows is not None and self._knows(block.id)):
                continue
            self._blocks.add(block.id)
            for record in block.records:
                writer = self._open.writer(Lane.of(record.header))
                writer.add_sealed(record.header, record.sealed, record.payload)

    def finish(self) -> tuple[WrittenPack, ...]:
        """The packs, coarse layers first; not synced yet."""
        checked = self._knows is not None
        return tuple(
            WrittenPack(entry, writer=value, checked=checked)
            for entry, value in self._open.finish_all()
        )

    def abort(self) -> None:
        """Drop what is not finished."""
        self._open.abort()
