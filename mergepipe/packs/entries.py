"""What an index is told of a pack: its records, and where they begin."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from mergepipe.grouping import grouped
from mergepipe.ids import PackId
from mergepipe.packs.format import Content, RecordHeader

_PACKS_AT_ONCE = 4096
_RECORDS_AT_ONCE = 1 << 16


class PackEntry(Struct, frozen=True):
    """A pack to be indexed: its id, file length, content and records with their offsets."""

    id: PackId
    size: int
    content: Content
    records: Sequence[tuple[RecordHeader, int]]


def at_once(entries: Iterable[PackEntry]) -> Iterator[list[PackEntry]]:
    """Packs in groups for one transaction of an index each.

    Half a million small ones take few of these; large ones take little memory and room in the map.
    """
    least = _RECORDS_AT_ONCE // _PACKS_AT_ONCE
    return grouped(entries, lambda entry: max(least, len(entry.records)), _RECORDS_AT_ONCE)
