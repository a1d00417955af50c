"""A promised pack: the frame of one that another side has, with room for its records.

On disk it is a sparse file of the pack's own length (`promised/<id>.pack`): header, footer and
trailer are there, records come one by one (docs/format-remote.md, "Lazy clones"). A record is there
if its checksum holds, so there is no list of them that could be wrong.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import PackId, digest
from mergepipe.packs.format import (
    FOOTER_ENTRY_BYTES,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    TRAILER_BYTES,
    RecordHeader,
    parse_record,
)
from mergepipe.packs.reader import (
    check_frame,
    pack_key,
    read_content,
    read_footer_bytes,
)
from mergepipe.packs.runs import runs

PROMISED = "promised/"
# Neighbours are fetched together up to this: enough to hide a round trip, and more than one such
# request is under way at a time.
_RUN_BYTES = 4 << 20


def promised_key(pack: PackId) -> str:
    """The key of a promised pack in the byte store of the repository that waits for it."""
    return PROMISED + pack_key(pack).rpartition("/")[2]


class PromisedPack:
    """Where the records of a promised pack are, and which of them are known to be here.

    136 bytes a record. A frame that is damaged gives a pack without records: what is asked of it
    is then answered from the file, whatever that holds. May be used from any thread.
    """

    def __init__(self, pack: PackId, size: int, footer: bytes, starts: "array[int]") -> None:
        self.id = pack
        self.size = size
        self.count = len(starts) - 1
        self._footer = footer
        self._starts = starts
        self._here = bytearray(self.count)
        self.scanned = False

    @classmethod
    def load(cls, store: ByteStore, pack: PackId) -> "PromisedPack":
        """Read the frame of a promised pack. Raises FileNotFoundError."""
        key = promised_key(pack)
        size = store.size(key)
        if size is None:
            raise FileNotFoundError(key)
        try:
            content = read_content(store, key)
            footer = read_footer_bytes(store, pack, key)
            records = check_frame(content, footer, size, key)
        except Corruption:
            return cls(pack, size, b"", array("Q", [0]))
        starts = array("Q", [offset for _, offset in records])
        starts.append(size - TRAILER_BYTES - len(footer))
        return cls(pack, size, footer, starts)

    @property
    def complete(self) -> bool:
        """Whether every record is known to be here."""
        return self.count > 0 and self._here.count(1) == self.count

    def records(self, offset: int, length: int) -> range:
        """The numbers of the records that lie in a range of the pack, in part or whole."""
        if offset >= self._starts[-1] or length <= 0:
            return range(0)
        first = max(0, bisect_right(self._starts, offset) - 1)
        return range(first, min(self.count, bisect_left(self._starts, offset + length)))

    def start(self, record: int) -> int:
        """Where a record begins; for the number behind the last one, where the footer does."""
        return self._starts[record]

    def header(self, record: int) -> RecordHeader:
        """What the footer says of a record."""
        return parse_record(self._footer, pack_key(self.id), record * FOOTER_ENTRY_BYTES)

    def is_here(self, record: int) -> bool:
        """Whether a record is known to be here; if not, it still may be."""
        return bool(self._here[record])

    def note(self, record: int, here: bool = True) -> None:
        """A record was seen here, whole; or was not."""
        self._here[record] = here

    def begins(self, record: int, head: memoryview) -> bool:
        """Whether these bytes are the header of a record: the rest most likely came with it."""
        at = record * FOOTER_ENTRY_BYTES
        return head[:RECORD_HEADER_BYTES] == self._footer[at : at + RECORD_HEADER_BYTES]

    def is_whole(self, record: int, data: memoryview) -> bool:
        """Whether these bytes are a record, by its checksum."""
        # A hole reads as zeros: most records that are not here are told by their first bytes.
        if data[: len(RECORD_MAGIC)] != RECORD_MAGIC or not self.begins(record, data):
            return False
        sealed = self.header(record).sealed(digest(data[RECORD_HEADER_BYTES:]))
        return sealed == data[:RECORD_HEADER_BYTES]


class PromisedRecord(NamedTuple):
    """A record of a promised pack, by its number there."""

    promise: PromisedPack
    number: int

    @property
    def pack(self) -> PackId:
        """The pack."""
        return self.promise.id

    @property
    def offset(self) -> int:
        """Where it begins."""
        return self.promise.start(self.number)

    @property
    def stored_bytes(self) -> int:
        """Its length."""
        return self.promise.start(self.number + 1) - self.offset


def neighbours(records: Iterable[PromisedRecord]) -> Iterator[list[PromisedRecord]]:
    """Records that lie side by side, in pack order, no run longer than 4 MiB but of one record."""
    return runs(sorted(records, key=lambda one: (one.pack, one.number)), _RUN_BYTES)
