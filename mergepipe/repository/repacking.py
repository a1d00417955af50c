"""Writing live records of sparse and small packs together, in the order of the newest refs."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.grouping import grouped
from mergepipe.ids import PackId
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content, RecordHeader
from mergepipe.packs.id_arrays import OrderedIds
from mergepipe.packs.index import PackEntry
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import PACK_BYTES, Lane
from mergepipe.packs.writer import PackWriter
from mergepipe.progress import Progress
from mergepipe.repository.survey import PackState, check_record

# What a record counts for at least: headers of tiny blocks take more memory than their bytes.
_LEAST_BYTES = 4096


class Order:
    """Where records belong: `ids` are those of all that is alive, what is read most first."""

    def __init__(self, packs: Sequence[PackState], ids: OrderedIds) -> None:
        self._ids = ids
        first = {pack.id: int(self.places(pack).min()) for pack in packs}
        self._packs = sorted(packs, key=lambda pack: (first[pack.id], pack.id))

    def places(self, pack: PackState) -> NDArray[np.int64]:
        """The number of each live record's block or object, in file order.

        Bases that no model holds itself come last, as they lie.
        """
        return self._ids.places(pack.live.table()["id"])

    def groups(self) -> Iterator[list[PackState]]:
        """Packs whose live records fill about one new pack."""
        return grouped(self._packs, _memory_bytes, PACK_BYTES)


def _memory_bytes(pack: PackState) -> int:
    """What a pack's live records count for in a group."""
    return max(pack.live_bytes, len(pack.live) * _LEAST_BYTES)


def rewrite(
    group: Sequence[PackState],
    order: Order,
    files: LocalByteStore,
    storage: Storage,
    progress: Progress,
) -> dict[PackId, int]:
    """Copy live records, byte for byte, to new packs; returns their sizes. Raises NoSpace."""
    records = [(pack, header, offset) for pack in group for header, offset in pack.live]
    in_order = np.argsort(np.concatenate([order.places(pack) for pack in group]), kind="stable")
    writers: dict[Lane, PackWriter] = {}
    values: list[tuple[ByteWriter, str]] = []
    entries: list[PackEntry] = []
    try:
        for pack, header, offset in map(records.__getitem__, in_order):
            lane = _lane(pack.content, header)
            writer = writers.get(lane)
            if writer is None:
                writer = writers[lane] = PackWriter(storage.store, pack.content)
            data = check_record(storage.store, pack.id, header, offset)
            sealed = bytes(data[:RECORD_HEADER_BYTES])
            writer.add_sealed(header, sealed, memoryview(data)[RECORD_HEADER_BYTES:])
            progress.advance(len(data))
        for writer in writers.values():
            identity, value = writer.finish()
            values.append((value, pack_key(identity)))
            entries.append(PackEntry(identity, value.size, writer.content, writer.records))
            value.sync()
        newest = max(files.modified(pack_key(pack.id)) or 0.0 for pack in group)
        storage.store.publish(values)
    except BaseException:
        for writer in writers.values():
            writer.abort()
        raise
    for entry in entries:  # it was copied, which makes nothing younger
        files.date(pack_key(entry.id), newest)
    storage.add_packs(entries)
    return {entry.id: entry.size for entry in entries}


def _lane(content: Content, header: RecordHeader) -> Lane:
    if content is Content.OBJECTS:
        return Lane.OBJECTS
    return Lane.COARSE if header.layer + 1 < header.layers else Lane.WHOLE
