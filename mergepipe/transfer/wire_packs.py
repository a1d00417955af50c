"""The packs that go over the wire: blocks and objects in order, at most 64 MiB each.

Made of what *might* have to travel; what the other side holds is then left out. So a push that was
cut, and finds some packs there, makes the same packs of the rest, and sends none again.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, field

from mergepipe.dtypes import DType
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, ObjectId, PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.format import (
    FOOTER_ENTRY_BYTES,
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    TRAILER_BYTES,
    Content,
)
from mergepipe.packs.reader import pack_key, read_exactly, read_footer_bytes
from mergepipe.packs.records import Encoding, Location
from mergepipe.packs.storage import Storage
from mergepipe.transfer.wire_choice import Choice, Chooser

WIRE_PACK_BYTES = 64 << 20
# What is encoded anew is made in memory, several packs at a time.
FRESH_PACK_BYTES = 16 << 20
_BATCH = 4096
_FOOTERS_KEPT = 16
_FRAME_BYTES = PACK_HEADER_BYTES + TRAILER_BYTES


class Copied(Struct, frozen=True):
    """A record that travels as it is stored: its first 128 bytes, and where it stands here."""

    sealed: bytes
    pack: PackId
    offset: int
    stored_bytes: int


class WirePack(Struct, frozen=True):
    """A pack to be, whose id is known before any of its records is read. `size` in bytes."""

    id: PackId
    content: Content
    records: tuple[Copied, ...]
    footer: bytes
    size: int


class StoredGroup(Struct, frozen=True):
    """Neighbouring blocks that travel as they are stored: packs of their layers, coarse ones first.

    `after`: groups that hold bases of its blocks. The last pack goes when these are there: so a
    block that came is whole, with all of its group, and a push that was cut finds it so.
    `raw_bytes` of all of them; `encodings` for those who check what the packs decode to.
    """

    number: int
    after: frozenset[int]
    packs: tuple[WirePack, ...]
    encodings: dict[BlockId, Encoding]
    raw_bytes: int


class FreshBlock(Struct, frozen=True):
    """A block to be encoded anew, against `base` or without one."""

    id: BlockId
    base: BlockId | None
    dtype: DType
    length: int


class FreshGroup(Struct, frozen=True):
    """Neighbouring blocks that are encoded anew; see `StoredGroup`."""

    number: int
    after: frozenset[int]
    blocks: tuple[FreshBlock, ...]

    @property
    def raw_bytes(self) -> int:
        """Length of all blocks."""
        return sum(block.length for block in self.blocks)


Group = StoredGroup | FreshGroup


class Grouping:
    """Candidates into groups. Used from one thread; groups come as they are asked for."""

    def __init__(
        self,
        storage: Storage,
        chooser: Chooser,
        *,
        pack_bytes: int = WIRE_PACK_BYTES,
        fresh_bytes: int = FRESH_PACK_BYTES,
    ) -> None:
        self._records = StoredRecords(storage)
        self._chooser = chooser
        self._room = pack_bytes - _FRAME_BYTES
        self._fresh_bytes = fresh_bytes
        self._numbers = itertools.count()
        self._begun: set[int] = set()
        self._group_of: dict[BlockId, int] = {}

    def run(self, candidates: Iterable[tuple[BlockId, int, DType]]) -> Iterator[Group]:
        """Groups of what has to travel; `candidates` are ids with lengths and dtypes."""
        stored = _Open(next(self._numbers))
        lanes = [0, 0]
        fresh = _Open(next(self._numbers))
        for choice, length, dtype in self._choices(candidates):
            if choice.encoding is None:
                if fresh.raw_bytes and fresh.raw_bytes + length > self._fresh_bytes:
                    yield from self._close(fresh)
                    fresh = _Open(next(self._numbers))
                self._add(fresh, choice, length, dtype)
                continue
            adds = _lane_bytes(choice.encoding)
            if any(
                have and have + more > self._room for have, more in zip(lanes, adds, strict=True)
            ):
                yield from self._close(stored)
                stored, lanes = _Open(next(self._numbers)), [0, 0]
            self._add(stored, choice, length, dtype)
            lanes = [have + more for have, more in zip(lanes, adds, strict=True)]
        yield from self._close(stored)
        yield from self._close(fresh)

    def _add(self, group: "_Open", choice: Choice, length: int, dtype: DType) -> None:
        """Put a block into a group, unless it is there; its room in the group it takes anyway."""
        group.raw_bytes += length
        if not choice.held:
            group.members.append((choice, length, dtype))
            self._group_of[choice.block] = group.number

    def _close(self, group: "_Open") -> Iterator[Group]:
        if not group.members:
            return
        bases = (choice.base for choice, _, _ in group.members if choice.base is not None)
        # Only on what has been handed out: who waits for the others would wait for itself.
        after = {self._group_of.get(base, group.number) for base in bases} & self._begun
        self._begun.add(group.number)
        if group.members[0][0].encoding is None:
            blocks = [
                FreshBlock(choice.block, choice.base, dtype, length)
                for choice, length, dtype in group.members
            ]
            yield FreshGroup(group.number, frozenset(after), tuple(blocks))
        else:
            yield self._stored(group, frozenset(after))

    def _stored(self, group: "_Open", after: frozenset[int]) -> StoredGroup:
        coarse: list[Location] = []
        whole: list[Location] = []
        encodings: dict[BlockId, Encoding] = {}
        for choice, _, _ in group.members:
            assert choice.encoding is not None
            encodings[choice.block] = choice.encoding
            coarse += choice.encoding.layers[:-1]
            whole.append(choice.encoding.layers[-1])
        packs = [self._records.pack(Content.BLOCKS, lane) for lane in (coarse, whole) if lane]
        raw_bytes = sum(length for _, length, _ in group.members)
        return StoredGroup(group.number, after, tuple(packs), encodings, raw_bytes)

    def _choices(
        self, candidates: Iterable[tuple[BlockId, int, DType]]
    ) -> Iterator[tuple[Choice, int, DType]]:
        remaining = iter(candidates)
        while batch := list(itertools.islice(remaining, _BATCH)):
            chosen = self._chooser.choose([block for block, _, _ in batch])
            for (_, length, dtype), choice in zip(batch, chosen, strict=True):
                yield choice, length, dtype


class _Open(Struct):
    """A group that is being filled; `raw_bytes` counts what is held, too."""

    number: int
    members: list[tuple[Choice, int, DType]] = field(default_factory=list)
    raw_bytes: int = 0


def object_packs(
    storage: Storage, objects: Iterable[tuple[ObjectId, bool]], pack_bytes: int = WIRE_PACK_BYTES
) -> Iterator[WirePack]:
    """Packs of objects in publish order; `objects` are ids, each with whether it is held there."""
    records = StoredRecords(storage)
    group: list[Location] = []
    size = 0
    remaining = iter(objects)
    while batch := list(itertools.islice(remaining, _BATCH)):
        places = _copies(storage, [identity for identity, _ in batch])
        for (_, held), copies in zip(batch, places, strict=True):
            at = min(copies, key=lambda copy: (copy.stored_bytes, copy.pack, copy.offset))
            adds = at.stored_bytes + FOOTER_ENTRY_BYTES
            if size and size + adds > pack_bytes - _FRAME_BYTES:
                if group:
                    yield records.pack(Content.OBJECTS, group)
                group, size = [], 0
            size += adds
            if not held:
                group.append(at)
    if group:
        yield records.pack(Content.OBJECTS, group)


def _copies(storage: Storage, objects: Sequence[ObjectId]) -> list[list[Location]]:
    """Where each object is. Raises MissingObject."""
    found = storage.ask(lambda view: [view.object_copies(identity) for identity in objects])
    if not all(found):  # "not there" is confirmed against the packs before it is believed
        storage.refresh()
        found = storage.ask(lambda view: [view.object_copies(identity) for identity in objects])
    for identity, copies in zip(objects, found, strict=True):
        if not copies:
            raise MissingObject(
                f"object {identity.hex()} is in no pack", "mp fsck tells what else is missing"
            )
    return found


class StoredRecords:
    """The sealed headers of records of this repository, from the footers of their packs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._footers: OrderedDict[PackId, dict[int, bytes]] = OrderedDict()

    def pack(self, content: Content, places: Sequence[Location]) -> WirePack:
        """The pack of these records, in this order."""
        records = []
        footer = bytearray()
        offset = PACK_HEADER_BYTES
        for at in places:
            sealed = self._sealed(at)
            records.append(Copied(sealed, at.pack, at.offset, at.stored_bytes))
            footer += pack_format.footer_entry(sealed, offset)
            offset += at.stored_bytes
        size = offset + len(footer) + TRAILER_BYTES
        return WirePack(PackId(digest(footer)), content, tuple(records), bytes(footer), size)

    def _sealed(self, at: Location) -> bytes:
        """The first 128 bytes of a record. Raises Corruption if another record stands there."""
        sealed = self._footer(at.pack).get(at.offset)
        if sealed is None:  # a pack whose footer is damaged: its records count one by one
            sealed = bytes(
                read_exactly(self._storage.store, pack_key(at.pack), at.offset, RECORD_HEADER_BYTES)
            )
        if pack_format.parse_record(sealed, pack_key(at.pack)) != at.header:
            raise Corruption(
                f"{pack_key(at.pack)}: the record at {at.offset} is not the one indexed",
                "mp fsck --repair rebuilds the index",
            )
        return sealed

    def _footer(self, pack: PackId) -> dict[int, bytes]:
        found = self._footers.get(pack)
        if found is None:
            try:
                footer = read_footer_bytes(self._storage.store, pack)
            except Corruption:
                footer = b""
            found = self._footers[pack] = {
                int.from_bytes(
                    footer[at + RECORD_HEADER_BYTES : at + FOOTER_ENTRY_BYTES], "little"
                ): (footer[at : at + RECORD_HEADER_BYTES])
                for at in range(0, len(footer), FOOTER_ENTRY_BYTES)
            }
            if len(self._footers) > _FOOTERS_KEPT:
                self._footers.popitem(last=False)
        else:
            self._footers.move_to_end(pack)
        return found


def _lane_bytes(encoding: Encoding) -> tuple[int, int]:
    """What an encoding takes in the pack of coarse layers, and in that of all else."""
    sizes = [at.stored_bytes + FOOTER_ENTRY_BYTES for at in encoding.layers]
    return sum(sizes[:-1]), sizes[-1]
