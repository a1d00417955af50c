"""The packs that one writer has open at once: one for each lane."""

from enum import IntEnum

from mergepipe.bytestore.protocol import ByteStore, ByteWriter
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import Content, RecordHeader, RecordKind
from mergepipe.packs.writer import PackWriter


class Lane(IntEnum):
    """What lies together: each depth of a model, so that one is read alone; and its objects."""

    COARSE = 0
    WHOLE = 1
    OBJECTS = 2

    @classmethod
    def of(cls, header: RecordHeader) -> "Lane":
        """The lane of a record."""
        if header.kind is RecordKind.OBJECT:
            return cls.OBJECTS
        return cls.WHOLE if header.is_last_layer else cls.COARSE

    @property
    def content(self) -> Content:
        """What its packs hold."""
        return Content.OBJECTS if self is Lane.OBJECTS else Content.BLOCKS


class OpenPacks:
    """Packs that are begun when a record of their lane comes. Not for use from several threads."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self._writers: dict[Lane, PackWriter] = {}

    @property
    def lanes(self) -> list[Lane]:
        """The lanes in which a pack is open: what is needed to read a block comes first."""
        return sorted(self._writers)

    @property
    def size(self) -> int:
        """Bytes written so far to packs that are open."""
        return sum(writer.size for writer in self._writers.values())

    def writer(self, lane: Lane) -> PackWriter:
        """The open pack of a lane; it is begun here if none is."""
        writer = self._writers.get(lane)
        if writer is None:
            writer = self._writers[lane] = PackWriter(self._store, lane.content)
        return writer

    def is_full(self, lane: Lane, pack_bytes: int) -> bool:
        """Whether the open pack of a lane has grown to so many bytes."""
        return self._writers[lane].size >= pack_bytes

    def finish(self, lane: Lane) -> tuple[PackEntry, ByteWriter]:
        """End the open pack of a lane: what to index, and the value to sync and publish.

        The value is the caller's to drop then. Raises NoSpace; the pack is still open.
        """
        entry, value = self._writers[lane].finish()
        del self._writers[lane]
        return entry, value

    def finish_all(self) -> list[tuple[PackEntry, ByteWriter]]:
        """As `finish`, of every lane in their order; if it raises, all of them are still open."""
        finished = [self._writers[lane].finish() for lane in self.lanes]
        self._writers.clear()
        return finished

    def abort(self) -> None:
        """Drop what is open."""
        for writer in self._writers.values():
            writer.abort()
        self._writers.clear()
