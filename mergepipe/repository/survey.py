"""Which records of which packs are alive: what gc keeps, by the packs' own footers."""

import contextlib
from collections.abc import Collection, Iterable, Iterator

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId, PackId, digest
from mergepipe.packs.choice import choose
from mergepipe.packs.footer_table import FOOTER, Table, read_table, stored_bytes
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content, RecordHeader, RecordKind
from mergepipe.packs.id_arrays import Ids, OrderedIds, batches, begins, rows_of, sorted_ids
from mergepipe.packs.reader import pack_ids, pack_key, read_exactly, read_footer
from mergepipe.packs.records import Place
from mergepipe.packs.storage import Storage

_BATCH = 4096
_AT_HAND = 8
# What `EncodingKey` holds. Ids are the numbers of those that are needed (docs/format-remote.md
# allows 2 billion records), and of bases one more: 0 is none.
_ENCODING = np.dtype(
    [(name, FOOTER[name]) for name in ("kind", "codec", "version", "layers", "raw_length")]
    + [("id", "<u4"), ("base", "<u4")]
)
_CANDIDATE = np.dtype(
    [
        ("encoding", _ENCODING),
        ("layer", "u1"),
        ("pack", np.int32),
        ("row", np.int64),
        ("stored", np.int64),
    ]
)
Rows = NDArray[np.int64]


class Alive(Struct):
    """What roots reach: objects with their kinds, and the blocks of the tensors among them."""

    objects: dict[ObjectId, str] = field(default_factory=dict)
    blocks: OrderedIds = field(default_factory=OrderedIds)


class Live:
    """The live records of a pack, in file order: headers with offsets, read when asked for."""

    def __init__(self, store: ByteStore, pack: PackId, rows: Rows) -> None:
        self._store = store
        self._pack = pack
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[RecordHeader, int]]:
        if len(self._rows):
            records = read_footer(self._store, self._pack)[1]
            for row in self._rows:
                yield records[row]

    def table(self) -> Table:
        """Their lines of the footer."""
        return read_table(self._store, self._pack)[1][self._rows]

    def dead(self) -> Iterator[RecordHeader]:
        """The headers of all other records."""
        live = set(self._rows.tolist())
        for row, (header, _) in enumerate(read_footer(self._store, self._pack)[1]):
            if row not in live:
                yield header


class PackState(Struct, frozen=True):
    """A pack and its live records, in file order. Sizes in bytes, `record_bytes`: of all."""

    id: PackId
    content: Content
    size: int
    record_bytes: int
    live: Live
    live_bytes: int

    def has_dead(self, ids: Collection[bytes]) -> bool:
        """Whether a dead record is of one of some blocks or objects, or leans on one."""
        return bool(ids) and any(each.id in ids or each.base in ids for each in self.live.dead())


def needed_blocks(blocks: Ids, storage: Storage, avoid: Collection[Place] = frozenset()) -> Ids:
    """These blocks, and every base that reading them takes, without the records to `avoid`.

    Raises MissingObject where one cannot be read: gc is then not to touch anything.
    """
    needed = OrderedIds()
    # A model's share at a time keeps memory apart from the size of the store.
    for batch in batches(blocks, _BATCH):
        needed.add(b"".join(choose(storage, batch, avoid)))
    return needed.ids


def readable_blocks(blocks: Ids, storage: Storage, avoid: Collection[Place] = frozenset()) -> Ids:
    """The same for those of the blocks that can be read at all."""
    needed = OrderedIds()
    for batch in batches(blocks, _BATCH):
        try:
            needed.add(b"".join(choose(storage, batch, avoid)))
        except Corruption:
            for block in batch:
                with contextlib.suppress(Corruption):
                    needed.add(b"".join(choose(storage, [block], avoid, confirm=False)))
    return needed.ids


def places_of(storage: Storage, ids: Collection[bytes]) -> frozenset[Place]:
    """Where the records of some blocks and objects are, by the footers of all packs."""
    places: set[Place] = set()
    for pack in pack_ids(storage.store):
        with contextlib.suppress(FileNotFoundError, Corruption):
            _, records = read_footer(storage.store, pack)
            places.update((pack, offset) for header, offset in records if header.id in ids)
    return frozenset(places)


def survey(storage: Storage, alive: Alive, blocks: Ids) -> tuple[list[PackState], list[PackId]]:
    """Every pack with its live records, and the packs whose footers cannot be read.

    A record is alive if it is of a live object, or of a complete encoding of a needed block that
    leans on nothing or on a needed block. All such encodings are kept: a coarse reading needs the
    one over a certain base. Of several copies one is alive, whose checksum holds.

    Promised packs (of a lazy clone) are left out: what they hold is the remote's. Their records do
    count towards complete encodings, but not as copies: those may be far away.
    """
    promised = storage.promises.promised()
    candidates = _Candidates(blocks, sorted_ids(alive.objects))
    tables: list[tuple[PackId, Content, int, int]] = []
    unreadable: list[PackId] = []
    for pack in pack_ids(storage.store):
        try:
            content, table = read_table(storage.store, pack)
        except FileNotFoundError:
            continue
        except Corruption:
            unreadable.append(pack)
            continue
        candidates.add(pack, table, here=pack not in promised)
        if pack not in promised:
            size = storage.store.size(pack_key(pack)) or 0
            tables.append((pack, content, size, int(stored_bytes(table).sum())))
    live = candidates.live(storage)
    nothing = np.empty(0, np.int64)
    packs = []
    for pack, content, size, record_bytes in tables:
        rows, live_bytes = live.get(pack, (nothing, 0))
        each = Live(storage.store, pack, rows)
        packs.append(
            PackState(
                id=pack,
                content=content,
                size=size,
                record_bytes=record_bytes,
                live=each,
                live_bytes=live_bytes,
            )
        )
    return packs, unreadable


class _Candidates:
    """Records that may be alive, of all packs, in arrays: 45 bytes each."""

    def __init__(self, blocks: Ids, objects: Ids) -> None:
        self._blocks = blocks
        self._objects = objects
        self._packs: list[PackId] = []
        self._here: list[bool] = []
        self._added: list[Table] = []
        self._at_hand: dict[PackId, list[tuple[RecordHeader, int]]] = {}

    def add(self, pack: PackId, table: Table, *, here: bool) -> None:
        """Take those of a pack's records that are needed; `here`: as copies, too."""
        block = table["kind"] == RecordKind.BLOCK
        ids, bases = np.empty(len(table), np.int64), np.full(len(table), -1, np.int64)
        ids[block] = rows_of(table["id"][block], self._blocks)
        ids[~block] = rows_of(table["id"][~block], self._objects)
        leaning = table["base"] != b""
        bases[leaning] = rows_of(table["base"][leaning], self._blocks)
        rows = np.flatnonzero((ids >= 0) & (~leaning | (bases >= 0)))
        chosen, kept = table[rows], np.empty(len(rows), _CANDIDATE)
        for name in ("kind", "codec", "version", "layers", "raw_length"):
            kept["encoding"][name] = chosen[name]
        kept["encoding"]["id"], kept["encoding"]["base"] = ids[rows], bases[rows] + 1
        kept["layer"] = chosen["layer"]
        kept["stored"] = stored_bytes(chosen)
        kept["row"] = rows
        kept["pack"] = len(self._packs)
        self._packs.append(pack)
        self._here.append(here)
        self._added.append(kept)

    def live(self, storage: Storage) -> dict[PackId, tuple[Rows, int]]:
        """Those of complete encodings, one of each that has copies: rows by pack, and bytes."""
        if not self._added:
            return {}
        rows = np.concatenate(self._added)
        self._added.clear()
        # All copies of a layer together, in the order of packs, and all layers of an encoding.
        whole = np.ascontiguousarray(rows["encoding"]).view(f"S{_ENCODING.itemsize}").ravel()
        order = np.lexsort((rows["layer"], whole))
        rows, whole = rows[order], whole[order]
        encoding_begins = begins(whole)
        record_begins = encoding_begins | begins(rows["layer"])
        starts = np.flatnonzero(encoding_begins)
        layers = np.add.reduceat(record_begins.astype(np.int64), starts)
        complete = (layers == rows["encoding"]["layers"][starts])[np.cumsum(encoding_begins) - 1]
        usable = complete & np.array(self._here, np.bool_)[rows["pack"]]
        record = (np.cumsum(record_begins) - 1)[usable]
        rows = rows[usable]
        firsts = np.flatnonzero(begins(record))
        counts = np.diff(np.append(firsts, len(rows)))
        keep = np.zeros(len(rows), np.bool_)
        keep[firsts[counts == 1]] = True
        fullness = np.bincount(rows["pack"][keep], minlength=len(self._packs))
        for begin, count in zip(firsts[counts > 1], counts[counts > 1], strict=True):
            at = self._best_copy(storage, rows, range(begin, begin + count), fullness)
            keep[at] = True
            fullness[rows["pack"][at]] += 1
        rows = rows[keep]
        rows = rows[np.lexsort((rows["row"], rows["pack"]))]
        ends = np.searchsorted(rows["pack"], np.arange(len(self._packs) + 1))
        return {
            pack: (rows["row"][begin:end].copy(), int(rows["stored"][begin:end].sum()))
            for pack, begin, end in zip(self._packs, ends[:-1], ends[1:], strict=True)
        }

    def _best_copy(
        self, storage: Storage, rows: Table, copies: Iterable[int], fullness: NDArray[np.int64]
    ) -> int:
        """The copy to keep: whole, and in the fullest pack, so that others can go."""
        ordered = sorted(
            copies,
            key=lambda at: (-fullness[rows["pack"][at]], self._packs[rows["pack"][at]], at),
        )
        for at in ordered:
            pack = self._packs[rows["pack"][at]]
            header, offset = self._records(storage, pack)[rows["row"][at]]
            with contextlib.suppress(Corruption):
                check_record(storage.store, pack, header, offset)
                return at
        return ordered[0]  # all damaged alike: fsck's business, nothing is lost by keeping one

    def _records(self, storage: Storage, pack: PackId) -> list[tuple[RecordHeader, int]]:
        """A pack's records; those of the last few packs that were asked for are at hand."""
        known = self._at_hand.pop(pack, None) or read_footer(storage.store, pack)[1]
        self._at_hand[pack] = known
        while len(self._at_hand) > _AT_HAND:
            del self._at_hand[next(iter(self._at_hand))]
        return known


def check_record(store: ByteStore, pack: PackId, header: RecordHeader, offset: int) -> bytearray:
    """A record as it stands in its pack, header included. Raises Corruption if it is damaged."""
    key = pack_key(pack)
    data = read_exactly(store, key, offset, header.stored_bytes)
    payload = memoryview(data)[RECORD_HEADER_BYTES:]
    sealed = header.sealed(digest(payload))
    if not sealed.endswith(header.checksum) or data[:RECORD_HEADER_BYTES] != sealed:
        raise Corruption(f"{key}: the record of {header.id.hex()[:12]} at {offset} is damaged")
    return data
