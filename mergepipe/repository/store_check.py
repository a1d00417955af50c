"""fsck of the store: packs, the index over them, and every block that history reaches."""

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, PackId
from mergepipe.packs.choice import choose
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import RecordHeader
from mergepipe.packs.reader import PREFIX, pack_ids, pack_key, parse_pack_key, read_footer
from mergepipe.packs.records import Encoding, Location, Place
from mergepipe.packs.storage import Storage
from mergepipe.repository.history_check import Reached
from mergepipe.repository.problems import Note, NoteKind, Problem, ProblemKind

_BATCH = 2048
_NOT_PLACED = -1


def check_packs(storage: Storage) -> tuple[dict[PackId, int], list[Problem], list[Note]]:
    """Every pack whose framing holds, with the bytes of its records; what is wrong with others."""
    packs: dict[PackId, int] = {}
    problems: list[Problem] = []
    for pack in pack_ids(storage.store):
        try:
            records = read_footer(storage.store, pack)[1]
        except FileNotFoundError:
            continue
        except Corruption as error:
            problems.append(Problem(ProblemKind.PACK, pack.hex(), error.message))
        else:
            packs[pack] = sum(header.stored_bytes for header, _ in records)
    notes = [
        Note(NoteKind.STRAY, key, "not a pack")
        for key in storage.store.list(PREFIX)
        if parse_pack_key(key) is None
    ]
    return packs, problems, notes


def check_index(storage: Storage, packs: Iterable[PackId]) -> list[Problem]:
    """Where the index and the packs' footers disagree.

    Sums of hashes are compared at first, a pack at a time; record by record only where they differ.
    """
    condemned = storage.condemned
    indexed: dict[PackId, int] = {}
    try:
        with storage.view() as view:
            listed = view.packs()
            for at in itertools.chain(view.blocks(), view.objects()):
                indexed[at.pack] = indexed.get(at.pack, 0) + _mark((at.header, at.offset))
    except IndexDamaged as error:
        return [Problem(ProblemKind.INDEX, "index", error.message)]
    differing: dict[PackId, set[tuple[RecordHeader, int]]] = {}
    for pack in packs:
        marks = sum(map(_mark, listed_records(storage, pack, condemned)))
        size = storage.store.size(pack_key(pack))
        if pack not in listed or listed[pack][0] != size or marks != indexed.get(pack, 0):
            differing[pack] = set()
    if differing:
        with storage.view() as view:
            for at in itertools.chain(view.blocks(), view.objects()):
                if at.pack in differing:
                    differing[at.pack].add((at.header, at.offset))
    problems = []
    for pack, stored in differing.items():
        expected = set(listed_records(storage, pack, condemned))
        detail = (
            f"{len(expected - stored)} records are missing from the index, "
            f"{len(stored - expected)} are not in the pack"
        )
        problems.append(Problem(ProblemKind.INDEX, pack.hex(), detail))
    return problems


def _mark(record: tuple[RecordHeader, int]) -> int:
    """A number for a record; the sum of such numbers stands for a set. Never 0."""
    return (1 << 64) + hash(record)


def listed_records(
    storage: Storage, pack: PackId, left_out: Collection[Place] = frozenset()
) -> Iterator[tuple[RecordHeader, int]]:
    """What the footer of a pack lists; nothing of one that is gone, or damaged, by now."""
    with contextlib.suppress(FileNotFoundError, Corruption):
        for record in read_footer(storage.store, pack)[1]:
            if (pack, record[1]) not in left_out:
                yield record


class Placed(Struct):
    """Blocks that can be read, by their rows in `BlockUses`, in the order of their records."""

    rows: NDArray[np.int64]
    packs: set[PackId]
    notes: list[Note]


def check_blocks(
    storage: Storage,
    reached: Reached,
    max_chain: int,
    is_here: Callable[[Location], bool] | None = None,
) -> Placed:
    """Resolve every reachable block, without reading any; problems go to `reached`.

    Notes are about chains longer than `max_chain` deltas. With `is_here`, only blocks all of whose
    records are: a promised one is taken as being there, not fetched to be looked at.
    """
    uses = reached.blocks
    numbers: dict[PackId, int] = {}
    places = np.zeros(len(uses), [("pack", np.int64), ("offset", np.uint64)])
    places["pack"] = _NOT_PLACED
    notes: list[Note] = []
    for start, batch in uses.batches(_BATCH):
        rows = {block: start + at for at, block in enumerate(batch)}
        for block, chosen in _resolve(storage, rows, reached):
            row = rows[block]
            length, owner = uses.length(row), uses.owner(row)
            depth = 0
            here = True
            link: BlockId | None = block
            while link is not None:
                encoding = chosen[link]
                here = here and (is_here is None or all(map(is_here, encoding.layers)))
                for at in encoding.layers:
                    numbers.setdefault(at.pack, len(numbers))
                if encoding.raw_length != length:
                    reached.complain(
                        ProblemKind.BLOCK,
                        link.hex(),
                        f"stored with {encoding.raw_length} bytes where {owner} needs {length}",
                    )
                link = encoding.base
                depth += link is not None
            if depth > max_chain:
                detail = f"{depth} deltas deep, store.max_chain is {max_chain} ({owner})"
                notes.append(Note(NoteKind.CHAIN, block.hex(), detail))
            if here:
                first = chosen[block].layers[0]
                places[row] = numbers[first.pack], first.offset
    order = np.lexsort((places["offset"], places["pack"]))
    return Placed(order[places["pack"][order] != _NOT_PLACED], set(numbers), notes)


def _resolve(
    storage: Storage, batch: dict[BlockId, int], reached: Reached
) -> Iterator[tuple[BlockId, dict[BlockId, Encoding]]]:
    try:
        together = choose(storage, batch)
    except Corruption:
        together = None  # one of them is to blame: ask one by one
    for block in batch:
        if together is not None:
            yield block, together
            continue
        try:
            chosen = choose(storage, [block], confirm=False)
        except Corruption as error:
            missing = isinstance(error, MissingObject)
            kind = ProblemKind.MISSING_BLOCK if missing else ProblemKind.BLOCK
            owner = reached.blocks.owner(batch[block])
            reached.complain(kind, block.hex(), f"{error.message} (needed by {owner})")
        else:
            yield block, chosen


def known_damage(storage: Storage, packs: Collection[PackId]) -> list[Problem]:
    """Records that were found damaged before, and are still there."""
    condemned = storage.condemned
    return [
        Problem(
            ProblemKind.RECORD,
            header.id.hex(),
            f"{pack_key(pack)}: the record of {header.id.hex()[:12]} at {offset} was found damaged",
        )
        for pack in sorted({pack for pack, _ in condemned}.intersection(packs))
        for header, offset in listed_records(storage, pack)
        if (pack, offset) in condemned
    ]
