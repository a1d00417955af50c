"""Neighbouring records read at once, and each cut out of what was read."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from mergepipe.errors import Corruption
from mergepipe.ids import PackId
from mergepipe.packs.format import RECORD_HEADER_BYTES, RecordHeader, parse_record
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Location

# What is read at once on this machine: past a few MiB, longer reads are no faster.
LARGEST_READ_BYTES = 16 << 20


class Extent(Protocol):
    """Part of a pack, a record or so. Bytes."""

    @property
    def pack(self) -> PackId:
        """The pack."""
        ...

    @property
    def offset(self) -> int:
        """Where it begins."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Its length."""
        ...


Part = TypeVar("Part", bound=Extent)


def runs(
    parts: Iterable[Part], largest_bytes: int = LARGEST_READ_BYTES, gap_bytes: int = 0
) -> Iterator[list[Part]]:
    """Parts of packs, in the order given, in runs to be read at once.

    A run lies in one pack, with at most `gap_bytes` between neighbours, and is no longer than
    `largest_bytes` unless it is one part.
    """
    run: list[Part] = []
    end = 0
    for part in parts:
        if run and (
            part.pack != run[0].pack
            or not 0 <= part.offset - end <= gap_bytes
            or part.offset + part.stored_bytes - run[0].offset > largest_bytes
        ):
            yield run
            run = []
        run.append(part)
        end = part.offset + part.stored_bytes
    if run:
        yield run


def extent_of(run: Sequence[Extent]) -> tuple[str, int, int]:
    """Where a run lies, as a byte store is asked: key, offset, length."""
    first, last = run[0], run[-1]
    return pack_key(first.pack), first.offset, last.offset + last.stored_bytes - first.offset


def record_in(span: memoryview, at: Location, start: int) -> tuple[RecordHeader, memoryview]:
    """The header of a record, checksum included, and its payload, from bytes read at `start`.

    Raises Corruption where they end early, or where another record stands than the index says.
    """
    begin = at.offset - start
    if begin + at.stored_bytes > len(span):
        raise Corruption(f"{pack_key(at.pack)} is cut short: {start + len(span)} bytes")
    header = parse_record(span, pack_key(at.pack), begin)
    if header != at.header:
        raise Corruption(f"{pack_key(at.pack)}: the record at {at.offset} is not the one indexed")
    begin += RECORD_HEADER_BYTES
    return header, span[begin : begin + header.encoded_length]
