"""The physical byte counter. It sits at the read call, and refuses what the plan did not name."""

import threading
from collections.abc import Sequence
from enum import Enum

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import Buffer, ByteStore, expect
from mergepipe.engine.work import Permit
from mergepipe.executors.readings import Readings
from mergepipe.ids import BlockId
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Location
from mergepipe.packs.runs import extent_of
from mergepipe.packs.storage import Storage


class UnplannedRead(RuntimeError):
    """A record was asked for that the plan does not read at that depth: a bug in the engine."""


class Source(Enum):
    """Whose bytes a read counts as."""

    EXPERT = "expert"
    BASE = "base"
    METADATA = "metadata"


class Meter:
    """Counts bytes by source. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = dict.fromkeys(Source, 0)
        self._reads = 0

    def count(self, source: Source, length: int) -> None:
        """Note one read of `length` bytes."""
        with self._lock:
            self._bytes[source] += length
            self._reads += 1

    def add(self, readings: Readings) -> None:
        """Take in what was read elsewhere."""
        with self._lock:
            self._bytes[Source.EXPERT] += readings.expert_bytes
            self._bytes[Source.BASE] += readings.base_bytes
            self._bytes[Source.METADATA] += readings.metadata_bytes
            self._reads += readings.reads

    def readings(self) -> Readings:
        """What was read so far."""
        with self._lock:
            return Readings(
                self._bytes[Source.EXPERT],
                self._bytes[Source.BASE],
                self._bytes[Source.METADATA],
                self._reads,
            )

    def expect(self, store: ByteStore, runs: Sequence[Sequence[Location]], permit: Permit) -> None:
        """Tell a store that is far away of runs that `read_records` will ask for.

        Raises UnplannedRead before anything is fetched.
        """
        if len(runs) < 2:
            return
        for run in runs:
            for at in run:
                _source(at, permit)
        expect(store, [extent_of(run) for run in runs])

    def read_records(self, store: ByteStore, records: Sequence[Location], permit: Permit) -> Buffer:
        """Records that lie side by side in one pack, in one read of exactly their bytes.

        Raises UnplannedRead before anything is read; FileNotFoundError if the pack is gone. The
        result is shorter than the records where the pack is.
        """
        first = records[0]
        end = first.offset
        lengths = dict.fromkeys(Source, 0)
        for at in records:
            if at.pack != first.pack or at.offset != end:
                raise UnplannedRead(f"bytes {end} to {at.offset} of {pack_key(at.pack)}")
            lengths[_source(at, permit)] += at.stored_bytes
            end = at.end
        span = memoryview(bytearray(end - first.offset))
        read = store.read_into(pack_key(first.pack), first.offset, span)
        with self._lock:
            for source, length in lengths.items():
                self._bytes[source] += length
            self._reads += 1
        return span[:read]


def _source(at: Location, permit: Permit) -> Source:
    block = BlockId(at.id)
    if block in permit.base:
        return Source.BASE
    if block in permit.exact or (block in permit.coarse and at.header.layer == 0):
        return Source.EXPERT
    raise UnplannedRead(
        f"layer {at.header.layer} of block {block.hex()[:12]} is not in the plan at that depth"
    )


class CountingStore(ForwardingStore):
    """A byte store whose every read counts as one source's."""

    def __init__(self, store: ByteStore, meter: Meter, source: Source) -> None:
        super().__init__(store)
        self._meter = meter
        self._source = source

    def get(self, key: str) -> bytes | None:
        """As the store below, counted."""
        value = self._store.get(key)
        self._meter.count(self._source, len(value or b""))
        return value

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """As the store below, counted."""
        read = self._store.read_into(key, offset, out)
        self._meter.count(self._source, read)
        return read

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """As the store below; counted when it is read."""
        expect(self._store, ranges)


def metered(storage: Storage, meter: Meter, source: Source = Source.METADATA) -> Storage:
    """The same packs and index; what is read through it counts as one source's."""
    return Storage(CountingStore(storage.store, meter, source), storage.index)
