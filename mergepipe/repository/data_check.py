"""fsck of the data: every record against its checksum, every block against its id.

Whoever does it, here or elsewhere, finds the same: docs/scale-out.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct, field

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.executors.blocks import PlacedBlocks, ways_to
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import Outcome
from mergepipe.executors.workforce import Workforce
from mergepipe.grouping import grouped
from mergepipe.ids import BlockId, PackId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Encoding, Location
from mergepipe.packs.storage import Storage
from mergepipe.progress import Progress
from mergepipe.repository.block_uses import BlockUses
from mergepipe.repository.history_check import Reached
from mergepipe.repository.problems import Problem, ProblemKind
from mergepipe.repository.store_check import Placed, listed_records
from mergepipe.repository.survey import check_record

# Bytes that are read and hashed at a time.
_PIECE_BYTES = 4 << 20

Records: TypeAlias = tuple[Location, ...]
"""Consecutive records of one pack."""


def verify_records(
    storage: Storage, packs: Mapping[PackId, int], workforce: Workforce, progress: Progress
) -> list[tuple[Location, Problem]]:
    """Compare every record of every pack with its checksum, reading all of them.

    Returns those that are damaged. Not those of promised packs: one that fails its checksum is one
    that has to come again.
    """
    promised = storage.promises.promised()
    packs = {pack: size for pack, size in packs.items() if pack not in promised}
    progress.start("records", sum(packs.values()))
    checked = workforce.answers(
        _record_pieces(storage, packs),
        _stored_bytes,
        RecordsJob(),
        RecordCheck(storage.store),
        progress,
    )
    return [
        (records[place], Problem(ProblemKind.RECORD, records[place].id.hex(), detail))
        for records, damaged in checked
        for place, detail in damaged
    ]


def _record_pieces(storage: Storage, packs: Mapping[PackId, int]) -> Iterator[Records]:
    for pack in packs:
        places = (
            Location(header, pack, offset) for header, offset in listed_records(storage, pack)
        )
        yield from map(tuple, grouped(places, lambda at: at.stored_bytes, _PIECE_BYTES))


def _stored_bytes(records: Records) -> int:
    return sum(at.stored_bytes for at in records)


class RecordsJob(Struct, frozen=True):
    """Comparing records with their checksums."""

    def open(self, store: ByteStore, /) -> "RecordCheck":
        """Comparing those of a store; it takes no index."""
        return RecordCheck(store)

    def names(self, records: Records, /) -> Sequence[str]:
        """The pack that is read."""
        return (pack_key(records[0].pack),)


class RecordCheck(Struct, frozen=True):
    """Compares records, on any thread."""

    store: ByteStore

    def readings(self) -> Readings:
        """Nothing that a report would tell of."""
        return NOTHING_READ

    def do(self, records: Records, /) -> Outcome:
        """Which of the records are damaged, by their place among them, and how."""
        damaged: list[tuple[int, str]] = []
        for place, at in enumerate(records):
            try:
                check_record(self.store, at.pack, at.header, at.offset)
            except Corruption as error:
                damaged.append((place, error.message))
            except FileNotFoundError:
                pass  # gc took the pack meanwhile
            except OSError as error:
                damaged.append((place, f"{pack_key(at.pack)} at {at.offset}: {error}"))
        return Outcome(tuple(damaged), made_bytes=_stored_bytes(records))


class BlockPiece(Struct, frozen=True):
    """Blocks that lie near each other, by their rows in `BlockUses`. Sizes in bytes.

    ways  how to read them and what they lean on; empty where who has the index does it
    """

    rows: tuple[int, ...]
    ids: tuple[BlockId, ...]
    size: int
    ways: Mapping[BlockId, Encoding] = field(default_factory=dict)


def verify_blocks(
    reader: BlockReader,
    placed: Placed,
    reached: Reached,
    workforce: Workforce,
    progress: Progress,
) -> None:
    """Decode every block and compare it with its id; problems go to `reached`."""
    uses = reached.blocks
    progress.start("blocks", uses.total_bytes())
    checked = workforce.answers(
        _block_pieces(placed, uses, reader if workforce.is_elsewhere(writes=False) else None),
        lambda piece: piece.size,
        BlocksJob(),
        BlockCheck(lambda piece: reader.read(piece.ids)),
        progress,
    )
    for piece, damaged in checked:
        for place, message in damaged:
            detail = f"{message} (needed by {uses.owner(piece.rows[place])})"
            reached.complain(ProblemKind.BLOCK, piece.ids[place].hex(), detail)


def _block_pieces(
    placed: Placed, uses: BlockUses, reader: BlockReader | None
) -> Iterator[BlockPiece]:
    for rows in grouped(map(int, placed.rows), uses.length, _PIECE_BYTES):
        yield _block_piece(rows, uses, reader)


def _block_piece(rows: Sequence[int], uses: BlockUses, reader: BlockReader | None) -> BlockPiece:
    ids = tuple(uses.id(row) for row in rows)
    size = sum(uses.length(row) for row in rows)
    return BlockPiece(tuple(rows), ids, size, {} if reader is None else ways_to(reader, ids))


class BlocksJob(Struct, frozen=True):
    """Comparing blocks with their ids."""

    def open(self, store: ByteStore, /) -> "BlockCheck":
        """Comparing those of a store that has no index."""
        placed = PlacedBlocks(store)
        return BlockCheck(lambda piece: placed.read(piece.ids, piece.ways))

    def names(self, piece: BlockPiece, /) -> Sequence[str]:
        """The blocks."""
        return tuple(block.hex()[:12] for block in piece.ids)


class BlockCheck(Struct, frozen=True):
    """Compares blocks, on any thread. `read` gives those of a piece, or raises Corruption."""

    read: Callable[[BlockPiece], Sequence[memoryview]]

    def readings(self) -> Readings:
        """Nothing that a report would tell of."""
        return NOTHING_READ

    def do(self, piece: BlockPiece, /) -> Outcome:
        """Which of the blocks are damaged, by their place in the piece, and how.

        Raises NeedsRepair where there is no index to look for other copies with.
        """
        try:
            self.read(piece)
        except Corruption as error:
            damaged = [(0, error.message)] if len(piece.ids) == 1 else self._one_by_one(piece)
            return Outcome(tuple(damaged), made_bytes=piece.size)
        return Outcome((), made_bytes=piece.size)

    def _one_by_one(self, piece: BlockPiece) -> list[tuple[int, str]]:
        """Find out which of them it was."""
        damaged: list[tuple[int, str]] = []
        for place, (row, block) in enumerate(zip(piece.rows, piece.ids, strict=True)):
            try:
                self.read(BlockPiece((row,), (block,), 0, piece.ways))
            except Corruption as error:
                damaged.append((place, error.message))
        return damaged
