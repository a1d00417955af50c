"""Which records of which packs are alive: what gc keeps, by the packs' own footers."""

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mergepipe.errors import Corruption
from mergepipe.ids import NO_ID, BlockId, ObjectId, PackId, digest
from mergepipe.packs.choice import choose
from mergepipe.packs.format import (
    RECORD_HEADER_BYTES,
    Content,
    EncodingKey,
    RecordHeader,
    RecordKind,
)
from mergepipe.packs.reader import pack_ids, pack_key, read_exactly, read_footer
from mergepipe.packs.records import Place, complete_encodings
from mergepipe.packs.storage import Storage

_BATCH = 4096


@dataclass(slots=True)
class Alive:
    """What roots reach: objects with their kinds, and the blocks of the tensors among them."""

    objects: dict[ObjectId, str] = field(default_factory=dict)
    blocks: dict[BlockId, None] = field(default_factory=dict)


@dataclass(slots=True)
class PackState:
    """A pack and its live records, in file order. Sizes in bytes."""

    id: PackId
    content: Content
    size: int
    records: list[tuple[RecordHeader, int]]
    live: list[tuple[RecordHeader, int]] = field(default_factory=list)

    @property
    def live_bytes(self) -> int:
        """Bytes of the live records."""
        return sum(header.stored_bytes for header, _ in self.live)

    def has_dead(self, ids: Collection[bytes]) -> bool:
        """Whether a dead record is of one of some blocks or objects, or leans on one."""
        if not ids:
            return False
        live = {offset for _, offset in self.live}
        return any(
            offset not in live and (header.id in ids or header.base in ids)
            for header, offset in self.records
        )

    @property
    def record_bytes(self) -> int:
        """Bytes of all records."""
        return sum(header.stored_bytes for header, _ in self.records)


def needed_blocks(
    blocks: Iterable[BlockId], storage: Storage, avoid: Collection[Place] = frozenset()
) -> set[BlockId]:
    """These blocks, and every base that reading them takes, without the records to `avoid`.

    Raises MissingObject where one cannot be read: gc is then not to touch anything.
    """
    needed: set[BlockId] = set()
    for batch in _batches(blocks):
        needed.update(choose(storage, batch, avoid))
    return needed


def readable_blocks(
    blocks: Iterable[BlockId], storage: Storage, avoid: Collection[Place] = frozenset()
) -> set[BlockId]:
    """The same for those of the blocks that can be read at all."""
    needed: set[BlockId] = set()
    for batch in _batches(blocks):
        try:
            needed.update(choose(storage, batch, avoid))
        except Corruption:
            for block in batch:
                with contextlib.suppress(Corruption):
                    needed.update(choose(storage, [block], avoid, confirm=False))
    return needed


def _batches(blocks: Iterable[BlockId]) -> Iterator[list[BlockId]]:
    """Resolving a model at a time keeps memory apart from the size of the store."""
    remaining = iter(blocks)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def places_of(storage: Storage, ids: Collection[bytes]) -> frozenset[Place]:
    """Where the records of some blocks and objects are, by the footers of all packs."""
    places: set[Place] = set()
    for pack in pack_ids(storage.store):
        with contextlib.suppress(FileNotFoundError, Corruption):
            _, records = read_footer(storage.store, pack)
            places.update((pack, offset) for header, offset in records if header.id in ids)
    return frozenset(places)


def survey(
    storage: Storage, alive: Alive, blocks: Collection[BlockId]
) -> tuple[list[PackState], list[PackId]]:
    """Every pack with its live records, and the packs whose footers cannot be read.

    A record is alive if it is of a live object, or of a complete encoding of a needed block that
    leans on nothing or on a needed block. All such encodings are kept: a coarse reading needs the
    one over a certain base. Of several copies one is alive, whose checksum holds.

    Promised packs (of a lazy clone) are left out: what they hold is the remote's. Their records do
    count towards complete encodings, but not as copies: those may be far away.
    """
    packs: list[PackState] = []
    others: list[PackState] = []
    promised = storage.promises.promised()
    unreadable: list[PackId] = []
    for pack in pack_ids(storage.store):
        try:
            content, records = read_footer(storage.store, pack)
        except FileNotFoundError:
            continue
        except Corruption:
            unreadable.append(pack)
            continue
        size = storage.store.size(pack_key(pack)) or 0
        state = PackState(pack, content, size, records)
        (others if pack in promised else packs).append(state)
    complete = complete_encodings(
        header
        for state in (*packs, *others)
        for header, _ in state.records
        if header.kind is RecordKind.BLOCK
        and header.id in blocks
        and (header.base == NO_ID or header.base in blocks)
    )
    # By what a record is, not where: equal for two copies.
    copies: dict[tuple[EncodingKey, int], list[tuple[PackState, RecordHeader, int]]] = {}
    for state in packs:
        for header, offset in state.records:
            if header.kind is RecordKind.OBJECT:
                wanted = header.id in alive.objects
            else:
                wanted = header.encoding in complete
            if wanted:
                copies.setdefault((header.encoding, header.layer), []).append(
                    (state, header, offset)
                )
    for copy in copies.values():
        state, header, offset = copy[0] if len(copy) == 1 else _best_copy(storage, copy)
        state.live.append((header, offset))
    for state in packs:
        state.live.sort(key=lambda record: record[1])
    return packs, unreadable


def check_record(storage: Storage, pack: PackId, header: RecordHeader, offset: int) -> bytearray:
    """A record as it stands in its pack, header included. Raises Corruption if it is damaged."""
    key = pack_key(pack)
    data = read_exactly(storage.store, key, offset, header.stored_bytes)
    payload = memoryview(data)[RECORD_HEADER_BYTES:]
    sealed = header.sealed(digest(payload))
    if not sealed.endswith(header.checksum) or data[:RECORD_HEADER_BYTES] != sealed:
        raise Corruption(f"{key}: the record of {header.id.hex()[:12]} at {offset} is damaged")
    return data


def _best_copy(
    storage: Storage, found: list[tuple[PackState, RecordHeader, int]]
) -> tuple[PackState, RecordHeader, int]:
    """The copy to keep: whole, and in the fullest pack, so that others can go."""
    ordered = sorted(found, key=lambda copy: (-len(copy[0].live), copy[0].id, copy[2]))
    for state, header, offset in ordered:
        try:
            check_record(storage, state.id, header, offset)
        except Corruption:
            continue
        return state, header, offset
    return ordered[0]  # all damaged alike: fsck's business, nothing is lost by keeping one
