"""What is missing here, read from a remote by ranges and written to packs in quarantine.

Records come as they are stored there, with the bases they need. What was quarantined before a cut
is not read again: the next attempt finds it.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MergepipeError, MissingObject, NoSpace
from mergepipe.ids import BlockId, PackId
from mergepipe.packs.choice import choose
from mergepipe.packs.encoded_blocks import encode_object
from mergepipe.packs.format import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    verify_payload,
)
from mergepipe.packs.open_packs import Lane, OpenPacks
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Location, Place
from mergepipe.packs.runs import record_in, runs
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.parallel import ordered_map
from mergepipe.progress import Progress
from mergepipe.sizes import format_size
from mergepipe.transfer.inspection import Arrived, Inspected, Inspector, Places
from mergepipe.transfer.quarantine import Quarantine
from mergepipe.transfer.two_storages import layered

FETCH_PACK_BYTES = 64 << 20
_BATCH = 4096
_RUN_BYTES = 8 << 20
# Bytes between two records that cost less to read than another exchange.
_GAP_BYTES = 64 << 10
_CONNECTIONS = 4
_MOST_ATTEMPTS = 8


class Received(Struct):
    """What came so far: bytes of whole packs, as they were written here."""

    bytes: int = 0
    packs: int = 0
    objects: int = 0
    blocks: int = 0


class Downloads:
    """Packs being written to quarantine, one for each lane. Used from one thread.

    `close` finishes them. If the context is left by an error they are finished too, with what has
    come so far: the next attempt goes on from there.
    """

    def __init__(
        self,
        quarantine: Quarantine,
        inspected: Inspected,
        pack_bytes: int = FETCH_PACK_BYTES,
    ) -> None:
        self.received = Received()
        self.inspected = inspected
        self._quarantine = quarantine
        self._pack_bytes = pack_bytes
        self._open = OpenPacks(quarantine.packs)
        self._right: dict[Lane, list[tuple[Places, int]]] = {lane: [] for lane in Lane}
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="quarantine")
        self._keeping: list[Future[None]] = []

    def __enter__(self) -> "Downloads":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Corruption):
            with contextlib.suppress(MergepipeError, OSError):  # the first error is the one to tell
                self.close()
        self._open.abort()
        self._keeper.shutdown()

    def add_object(self, canonical: bytes) -> None:
        """Append an object."""
        header, payload = encode_object(canonical)
        self._open.writer(Lane.OBJECTS).add(header, payload)
        self.received.objects += 1
        self._close_if_full(Lane.OBJECTS)

    def add_record(self, header: RecordHeader, record: memoryview, before: Places | None) -> None:
        """Append a record of a block as it stands, its checksum verified by the caller.

        `before`: the places of the layers before it, if its block was inspected and is right.
        """
        lane = Lane.of(header)
        offset = self._open.writer(lane).add_copy(header, record)
        if before is not None:
            self._right[lane].append((before, offset))
        self.received.blocks += lane is Lane.WHOLE
        self._close_if_full(lane)

    def close(self) -> None:
        """Finish all packs; on return they are durable."""
        for lane in self._open.lanes:
            self._finish(lane)
        for keeping in self._keeping:
            keeping.result()
        self._keeping.clear()

    def _close_if_full(self, lane: Lane) -> None:
        if self._open.is_full(lane, self._pack_bytes):
            self._finish(lane)

    def finish(self, lane: Lane) -> None:
        """Finish the pack of one lane, if one is begun; what was added there can then be read."""
        if lane in self._open.lanes:
            self._finish(lane)
        while self._keeping:
            self._keeping.pop(0).result()

    def _finish(self, lane: Lane) -> None:
        self._keeping = [keeping for keeping in self._keeping if not _is_done(keeping)]
        while len(self._keeping) > 1:
            self._keeping.pop(0).result()
        self.received.packs += 1
        entry, value = self._open.finish(lane)
        self.received.bytes += entry.size
        for before, offset in self._right[lane]:
            self.inspected.note((*before, (entry.id, offset)))
        self._right[lane].clear()
        self._keeping.append(self._keeper.submit(self._quarantine.keep_written, entry, value))


def _is_done(keeping: "Future[None]") -> bool:
    if keeping.done():
        keeping.result()
        return True
    return False


class BlockDownload:
    """Brings blocks that are neither here nor in quarantine.

    Raises MissingObject for one that the remote does not have either, Corruption for one that it
    has damaged only, or of another length than expected.
    """

    def __init__(
        self,
        here: Storage,
        remote: Storage,
        store: ByteStore,
        downloads: Downloads,
        progress: Progress,
    ) -> None:
        self._here = here
        self._remote = remote
        self._both = layered(here, remote)
        self._store = store
        self._downloads = downloads
        self._progress = progress
        self._leaned_on: set[bytes] = set()
        self._inspector = Inspector(here, downloads.inspected, self._is_leaned_on)
        self._avoid: set[Place] = set()
        self._done: set[Place] = set()

    def run(self, expected: Mapping[BlockId, int], room: Callable[[], int]) -> None:
        """Bring all of these blocks (with lengths) that are missing; `room`: bytes free here."""
        for attempt in range(_MOST_ATTEMPTS):
            records = self._missing_records(expected)
            total = sum(at.stored_bytes for at in records)
            if total > room():
                raise NoSpace(
                    f"{format_size(total)} are to come, {format_size(room())} are free here",
                    "free some disk space (mp gc drops what no branch or tag needs) and try again",
                )
            self._progress.start("fetch", total)
            try:
                self._transfer(records)
                return
            except FileNotFoundError as error:
                # Its gc joined packs with others since they were listed.
                if not self._remote.refresh():
                    raise MissingObject(f"{error} is gone from the remote", "try again") from error
            except _BadRecord as bad:
                self._avoid.add(bad.at.place)
                if attempt + 1 == _MOST_ATTEMPTS:
                    raise bad.error from None

    def _missing_records(self, expected: Mapping[BlockId, int]) -> list[Location]:
        """What has to be read, in the order of the models, each lane for itself."""
        blocks = list(expected)
        local = set(self._here.ask(lambda view: view.packs()))
        wanted: dict[Place, Location] = {}
        rank: dict[PackId, int] = {}
        for first in range(0, len(blocks), _BATCH):
            batch = blocks[first : first + _BATCH]
            missing = self._here.ask(functools.partial(_lacking, blocks=batch))
            if not missing:
                continue
            try:
                chosen = choose(self._both, missing, self._avoid, confirm=False)
            except MissingObject as error:
                raise MissingObject(f"the remote is incomplete: {error.message}") from error
            for block, encoding in chosen.items():
                if encoding.raw_length != expected.get(block, encoding.raw_length):
                    raise Corruption(
                        f"block {block.hex()} has {encoding.raw_length} bytes at the remote, "
                        f"its tensor {expected[block]}"
                    )
                if encoding.base is not None:
                    self._leaned_on.add(encoding.base)
                for at in encoding.layers:
                    if at.pack not in local and at.place not in self._done:
                        wanted[at.place] = at
                        rank.setdefault(at.pack, len(rank))
        return sorted(
            wanted.values(), key=lambda at: (at.header.is_last_layer, rank[at.pack], at.offset)
        )

    def _transfer(self, records: Sequence[Location]) -> None:
        coarse = [at for at in records if not at.header.is_last_layer]
        self._transfer_lane(coarse)
        self._downloads.finish(Lane.COARSE)  # what follows is decoded with it
        self._transfer_lane(records[len(coarse) :])

    def _transfer_lane(self, records: Sequence[Location]) -> None:
        neighbours = runs(records, _RUN_BYTES, _GAP_BYTES)
        with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="fetch") as pool:
            for run in ordered_map(pool, self._read, neighbours, window=2 * _CONNECTIONS):
                for at, one, before in run:
                    self._downloads.add_record(one.header, one.record, before)
                    self._done.add(at.place)
                    self._progress.advance(len(one.record))

    def _read(self, run: Sequence[Location]) -> list[tuple[Location, "_Came", Places | None]]:
        """The records of one run, their checksums verified, and blocks inspected as far as can be.

        Raises Corruption for a block that is another one.
        """
        start = run[0].offset
        data = memoryview(bytearray(run[-1].end - start))  # bounded when footers were read
        count = self._store.read_into(pack_key(run[0].pack), start, data)
        came = [_check(at, data[:count], start) for at in run]
        arrived = [Arrived(one.header, one.record[RECORD_HEADER_BYTES:]) for one in came]
        return list(zip(run, came, self._inspector.inspect(arrived), strict=True))

    def _is_leaned_on(self, header: RecordHeader) -> bool:
        return header.id in self._leaned_on


class _Came(Struct, frozen=True):
    """A record as it came, header included."""

    header: RecordHeader
    record: memoryview


def _check(at: Location, data: memoryview, start: int) -> _Came:
    """A record out of what was read at `start`. Raises _BadRecord."""
    try:
        header, payload = record_in(data, at, start)
        verify_payload(header, payload, pack_key(at.pack))
    except Corruption as error:
        raise _BadRecord(at, error) from error
    return _Came(header, data[at.offset - start : at.end - start])


def _lacking(view: View, blocks: Sequence[BlockId]) -> list[BlockId]:
    return [block for block in blocks if not view.has_block(block)]


class _BadRecord(Exception):
    """A record of the remote cannot be used; there may be another way to read its block."""

    def __init__(self, at: Location, error: Corruption) -> None:
        self.at = at
        self.error = error
