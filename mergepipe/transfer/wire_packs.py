"""The packs that go over the wire: blocks and objects in order, at most 64 MiB each.

Made of what *might* have to travel; what the other side holds is then left out. So a push that was
cut, and finds some packs there, makes the same packs of the rest, and sends none again.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mergepipe.dtypes import DType
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, ObjectId, PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.encodings import Encoding
from mergepipe.packs.format import (
    FOOTER_ENTRY_BYTES,
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    TRAILER_BYTES,
    Content,
)
from mergepipe.packs.index import Location
from mergepipe.packs.reader import pack_key, read_exactly
from mergepipe.packs.storage import Storage
from mergepipe.transfer.holdings import read_footer_bytes
from mergepipe.transfer.wire_choice import Choice, Chooser

WIRE_PACK_BYTES = 64 << 20
# What is encoded anew is made in memory, several packs at a time.
FRESH_PACK_BYTES = 16 << 20
_BATCH = 4096
_FOOTERS_KEPT = 16
_FRAME_BYTES = PACK_HEADER_BYTES + TRAILER_BYTES


@dataclass(frozen=True, slots=True)
class Copied:
    """A record that travels as it is stored: its first 128 bytes, and where it stands here."""

    sealed: bytes
    pack: PackId
    offset: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class WirePack:
    """A pack to be, whose id is known before any of its records is read. `size` in bytes."""

    id: PackId
    content: Content
    records: tuple[Copied, ...]
    footer: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Neighbouring blocks that travel as they are stored: packs of their layers, coarse ones apart.

    `raw_bytes` of all of them; `encodings` for those who check what the packs decode to.
    """

    packs: tuple[WirePack, ...]
    encodings: dict[BlockId, Encoding]
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class FreshBlock:
    """A block to be encoded anew, against `base` or without one."""

    id: BlockId
    base: BlockId | None
    dtype: DType
    length: int


@dataclass(frozen=True, slots=True)
class FreshGroup:
    """Neighbouring blocks that are encoded anew."""

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

    def run(self, candidates: Iterable[tuple[BlockId, int, DType]]) -> Iterator[Group]:
        """Groups of what has to travel; `candidates` are ids with lengths and dtypes."""
        stored: list[tuple[Choice, int]] = []
        lanes = [0, 0]
        fresh: list[tuple[Choice, FreshBlock]] = []
        fresh_bytes = 0
        for block, length, dtype, choice in self._choices(candidates):
            if choice.encoding is None:
                if fresh and fresh_bytes + length > self._fresh_bytes:
                    yield from _fresh_group(fresh)
                    fresh, fresh_bytes = [], 0
                fresh.append((choice, FreshBlock(block, choice.base, dtype, length)))
                fresh_bytes += length
                continue
            adds = _lane_bytes(choice.encoding)
            if any(
                have and have + more > self._room for have, more in zip(lanes, adds, strict=True)
            ):
                yield from self._stored_group(stored)
                stored, lanes = [], [0, 0]
            stored.append((choice, length))
            lanes = [have + more for have, more in zip(lanes, adds, strict=True)]
        yield from self._stored_group(stored)
        yield from _fresh_group(fresh)

    def _choices(
        self, candidates: Iterable[tuple[BlockId, int, DType]]
    ) -> Iterator[tuple[BlockId, int, DType, Choice]]:
        remaining = iter(candidates)
        while batch := list(itertools.islice(remaining, _BATCH)):
            chosen = self._chooser.choose([block for block, _, _ in batch])
            for (block, length, dtype), choice in zip(batch, chosen, strict=True):
                yield block, length, dtype, choice

    def _stored_group(self, stored: Sequence[tuple[Choice, int]]) -> Iterator[StoredGroup]:
        coarse: list[Location] = []
        whole: list[Location] = []
        encodings: dict[BlockId, Encoding] = {}
        raw_bytes = 0
        for choice, length in stored:
            if not choice.held:
                assert choice.encoding is not None
                encodings[choice.block] = choice.encoding
                raw_bytes += length
                coarse += choice.encoding.layers[:-1]
                whole.append(choice.encoding.layers[-1])
        packs = [self._records.pack(Content.BLOCKS, lane) for lane in (coarse, whole) if lane]
        if packs:
            yield StoredGroup(tuple(packs), encodings, raw_bytes)


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
        if not at.describes(pack_format.parse_record(sealed, pack_key(at.pack))):
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


def _fresh_group(fresh: Sequence[tuple[Choice, FreshBlock]]) -> Iterator[FreshGroup]:
    blocks = tuple(block for choice, block in fresh if not choice.held)
    if blocks:
        yield FreshGroup(blocks)
