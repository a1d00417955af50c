"""A few megabytes of a file on their way into the store, as an item that anybody can do."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.layout import PIECE_BYTES, SourceTensor, Span
from mergepipe.checkpoints.outcome import BlockNote, BlockOutcome
from mergepipe.dtypes import DType, Kind
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import Outcome
from mergepipe.formats.tree import SourceFile, StableReader, open_stable
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.records import Encoding
from mergepipe.parallel import BufferPool


class PieceTensor(Struct, frozen=True):
    """What encoding blocks of one tensor takes.

    pair    with the base's tensor, that its blocks lean on
    before  with the tensor of the version before, where both were trained from the base: its blocks
            may lean on that, and be read coarsely over the base all the same
    stored  blocks of other tensors that the store has, which are likely to be the very same: each
            is compared with the block of its index
    """

    tensor: SourceTensor
    pair: Pair | None = None
    stored: tuple[tuple[BlockId, ...], ...] = ()
    before: Pair | None = None


class Piece(Struct, frozen=True):
    """Neighbouring blocks of one file, with all that was decided of them before they are read.

    tensors  by number, of the spans
    ways     how to read bases, and what is likely to be the same; empty where who has the index
             does it
    leaning  what to lean on for each base: itself, or what it leans on where its chain is long
    layered  of those, which have a coarse layer over which base that another may follow
    """

    source: SourceFile
    spans: tuple[Span, ...]
    tensors: Mapping[int, PieceTensor]
    ways: Mapping[BlockId, Encoding] = field(default_factory=dict)
    leaning: Mapping[BlockId, BlockId] = field(default_factory=dict)
    layered: frozenset[tuple[BlockId, BlockId]] = frozenset()

    @property
    def start(self) -> int:
        """Where it begins in the file."""
        return self.spans[0].start

    @property
    def length(self) -> int:
        """Its size in bytes."""
        return self.spans[-1].end - self.start


class Coder(Protocol):
    """Encodes blocks, on any thread."""

    def encode(
        self,
        piece: Piece,
        identities: Sequence[BlockId],
        raws: Sequence[memoryview],
        file: StableReader,
    ) -> list[BlockOutcome]:
        """The outcomes of a piece's blocks, in order; views of `raws` may be in them."""
        ...

    def readings(self) -> Readings:
        """What was read of the store so far, where nobody else counts it."""
        ...


class IngestWorker:
    """Reads, names and encodes pieces, on any thread."""

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._pool = BufferPool(PIECE_BYTES)

    def readings(self) -> Readings:
        """What was read of the store so far."""
        return self._coder.readings()

    def do(self, piece: Piece, /) -> Outcome:
        """A `BlockNote` for each block. Raises SourceChanged, and what the coder raises."""
        buffer = self._pool.take(piece.length)
        view = memoryview(buffer)[: piece.length]
        # Opened for each piece: whoever gets it, and however long ago the last one was.
        with open_stable(piece.source) as file:
            file.read_into(piece.start, view)
            raws = [view[span.start - piece.start : span.end - piece.start] for span in piece.spans]
            identities = [block_id(raw) for raw in raws]
            outcomes = self._coder.encode(piece, identities, raws, file)
        notes = tuple(
            BlockNote(
                outcome.id,
                outcome.facts,
                *_values(piece.tensors[span.tensor].tensor.dtype, raw),
            )
            for span, outcome, raw in zip(piece.spans, outcomes, raws, strict=True)
        )
        return Outcome(
            notes,
            [outcome.encoded for outcome in outcomes if outcome.encoded is not None],
            piece.length,
            lambda: self._pool.give_back(buffer),
        )


class NamesOnly:
    """Encodes nothing: for the ids that blocks would have."""

    def encode(
        self,
        piece: Piece,
        identities: Sequence[BlockId],
        raws: Sequence[memoryview],
        file: StableReader,
    ) -> list[BlockOutcome]:
        """Ids only."""
        return [BlockOutcome(identity, None) for identity in identities]

    def readings(self) -> Readings:
        """The store is not read."""
        return NOTHING_READ


def _values(dtype: DType, raw: memoryview) -> tuple[int, float]:
    """How many of them are not finite, and the sum of squares of the others, roughly."""
    if dtype.kind not in (Kind.FLOAT, Kind.COMPLEX):
        return 0, 0.0
    # numpy: not for files without weights
    from mergepipe.values import count_nonfinite, estimated_square

    return count_nonfinite(dtype, raw), estimated_square(dtype, raw)
