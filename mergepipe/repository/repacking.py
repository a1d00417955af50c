"""Writing live records of sparse and small packs together, in the order of the newest refs."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.grouping import grouped
from mergepipe.ids import PackId
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.id_arrays import OrderedIds
from mergepipe.packs.open_packs import Lane, OpenPacks
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import PACK_BYTES
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
    packs = OpenPacks(storage.store)
    finished: list[tuple[PackEntry, ByteWriter]] = []
    try:
        for pack, header, offset in map(records.__getitem__, in_order):
            data = check_record(storage.store, pack.id, header, offset)
            packs.writer(Lane.of(header)).add_copy(header, data)
            progress.advance(len(data))
        finished = packs.finish_all()
        for _, value in finished:
            value.sync()
        newest = max(files.modified(pack_key(pack.id)) or 0.0 for pack in group)
        storage.store.publish([(value, pack_key(entry.id)) for entry, value in finished])
    except BaseException:
        packs.abort()
        for _, value in finished:
            value.abort()
        raise
    entries = [entry for entry, _ in finished]
    for entry in entries:  # it was copied, which makes nothing younger
        files.date(pack_key(entry.id), newest)
    storage.add_packs(entries)
    return {entry.id: entry.size for entry in entries}
