"""fsck of the store: packs, the index over them, and every block that history reaches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, PackId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import choose
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.format import RecordHeader
from mergepipe.packs.reader import PREFIX, pack_ids, pack_key, read_footer
from mergepipe.packs.records import Encoding, Location
from mergepipe.packs.storage import Storage
from mergepipe.parallel import ordered_map
from mergepipe.progress import Progress
from mergepipe.repository.history_check import Reached
from mergepipe.repository.problems import Note, NoteKind, Problem, ProblemKind
from mergepipe.repository.survey import check_record

_BATCH = 2048
# Raw bytes that a thread reads and hashes at a time.
_PIECE_BYTES = 4 << 20

_Records = list[tuple[RecordHeader, int]]


def check_packs(storage: Storage) -> tuple[dict[PackId, _Records], list[Problem], list[Note]]:
    """The records of every pack whose framing holds, and what is wrong with the others."""
    packs: dict[PackId, _Records] = {}
    problems: list[Problem] = []
    for pack in pack_ids(storage.store):
        try:
            packs[pack] = read_footer(storage.store, pack)[1]
        except FileNotFoundError:
            continue
        except Corruption as error:
            problems.append(Problem(ProblemKind.PACK, pack.hex(), error.message))
    known = {pack_key(pack) for pack in pack_ids(storage.store)}
    notes = [
        Note(NoteKind.STRAY, key, "not a pack")
        for key in storage.store.list(PREFIX)
        if key not in known
    ]
    return packs, problems, notes


def check_index(storage: Storage, packs: dict[PackId, _Records]) -> list[Problem]:
    """Where the index and the packs' footers disagree."""
    indexed: dict[PackId, set[tuple[RecordHeader, int]]] = {}
    try:
        with storage.view() as view:
            listed = view.packs()
            for at in itertools.chain(view.blocks(), view.objects()):
                indexed.setdefault(at.pack, set()).add((at.header, at.offset))
    except IndexDamaged as error:
        return [Problem(ProblemKind.INDEX, "index", error.message)]
    problems = []
    condemned = storage.condemned
    for pack, records in packs.items():
        expected = {record for record in records if (pack, record[1]) not in condemned}
        found = indexed.get(pack, set())
        size = storage.store.size(pack_key(pack))
        if pack not in listed or listed[pack][0] != size or expected != found:
            detail = (
                f"{len(expected - found)} records are missing from the index, "
                f"{len(found - expected)} are not in the pack"
            )
            problems.append(Problem(ProblemKind.INDEX, pack.hex(), detail))
    return problems


def check_blocks(
    storage: Storage,
    reached: Reached,
    max_chain: int,
    is_here: Callable[[Location], bool] | None = None,
) -> tuple[list[BlockId], set[PackId], list[Note]]:
    """Resolve every reachable block, without reading any; problems go to `reached`.

    Returns the readable blocks in the order of their records, the packs that they need, and notes
    about chains longer than `max_chain` deltas. With `is_here`, only blocks all of whose records
    are: a promised one is taken as being there, not fetched to be looked at.
    """
    placed: list[tuple[PackId, int, BlockId]] = []
    needed: set[PackId] = set()
    notes: list[Note] = []
    remaining = iter(reached.blocks)
    while batch := list(itertools.islice(remaining, _BATCH)):
        for block, chosen in _resolve(storage, batch, reached):
            length, owner = reached.blocks[block]
            depth = 0
            here = True
            link: BlockId | None = block
            while link is not None:
                encoding = chosen[link]
                here = here and (is_here is None or all(map(is_here, encoding.layers)))
                needed.update(at.pack for at in encoding.layers)
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
            first = chosen[block].layers[0]
            if here:
                placed.append((first.pack, first.offset, block))
    return [block for _, _, block in sorted(placed)], needed, notes


def _resolve(
    storage: Storage, batch: list[BlockId], reached: Reached
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
            _, owner = reached.blocks[block]
            reached.complain(kind, block.hex(), f"{error.message} (needed by {owner})")
        else:
            yield block, chosen


def known_damage(storage: Storage, packs: dict[PackId, _Records]) -> list[Problem]:
    """Records that were found damaged before, and are still there."""
    condemned = storage.condemned
    return [
        Problem(
            ProblemKind.RECORD,
            header.id.hex(),
            f"{pack_key(pack)}: the record of {header.id.hex()[:12]} at {offset} was found damaged",
        )
        for pack, records in packs.items()
        for header, offset in records
        if (pack, offset) in condemned
    ]


def verify_records(
    storage: Storage, packs: dict[PackId, _Records], threads: int, progress: Progress
) -> list[tuple[Location, Problem]]:
    """Compare every record of every pack with its checksum, reading all of them.

    Returns those that are damaged. Not those of promised packs: one that fails its checksum is one
    that has to come again.
    """
    promised = storage.promises.promised()
    packs = {pack: records for pack, records in packs.items() if pack not in promised}
    total = sum(header.stored_bytes for records in packs.values() for header, _ in records)
    progress.start("records", total)
    damaged: list[tuple[Location, Problem]] = []

    def work(at: Location) -> tuple[Location, str | None]:
        try:
            check_record(storage, at.pack, at.header, at.offset)
        except Corruption as error:
            return at, error.message
        except FileNotFoundError:
            return at, None
        except OSError as error:
            return at, f"{pack_key(at.pack)} at {at.offset}: {error}"
        return at, None

    records = (Location(header, pack, at) for pack, each in packs.items() for header, at in each)
    with ThreadPoolExecutor(threads, thread_name_prefix="fsck") as workers:
        for at, detail in ordered_map(workers, work, records, window=2 * threads + 2):
            progress.advance(at.stored_bytes)
            if detail is not None:
                damaged.append((at, Problem(ProblemKind.RECORD, at.id.hex(), detail)))
    return damaged


def verify_blocks(
    reader: BlockReader,
    blocks: Iterable[BlockId],
    reached: Reached,
    threads: int,
    progress: Progress,
) -> None:
    """Decode every block and compare it with its id; problems go to `reached`."""
    progress.start("blocks", sum(length for length, _ in reached.blocks.values()))

    def work(piece: list[BlockId]) -> tuple[int, list[tuple[BlockId, Corruption]]]:
        try:
            return sum(len(raw) for raw in reader.read(piece)), []
        except Corruption:
            pass  # find out which of them it was
        bad: list[tuple[BlockId, Corruption]] = []
        size = 0
        for block in piece:
            try:
                size += len(reader.read([block])[0])
            except Corruption as error:
                bad.append((block, error))
        return size, bad

    with ThreadPoolExecutor(threads, thread_name_prefix="fsck") as workers:
        pieces = _pieces(blocks, reached)
        for size, bad in ordered_map(workers, work, pieces, window=2 * threads + 2):
            progress.advance(size)
            for block, error in bad:
                _, owner = reached.blocks[block]
                detail = f"{error.message} (needed by {owner})"
                reached.complain(ProblemKind.BLOCK, block.hex(), detail)


def _pieces(blocks: Iterable[BlockId], reached: Reached) -> Iterator[list[BlockId]]:
    piece: list[BlockId] = []
    size = 0
    for block in blocks:
        length = reached.blocks[block][0]
        if piece and size + length > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(block)
        size += length
    if piece:
        yield piece
