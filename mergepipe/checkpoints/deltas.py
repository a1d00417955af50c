"""What leans on a base: how the blocks of one ingest are encoded, and the profile they make."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.base_blocks import IndexedBases, expected, layered_over, leaning_of
from mergepipe.checkpoints.delta_coding import DeltaCoder, tried
from mergepipe.checkpoints.ingest_work import Piece, PieceTensor
from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockNote
from mergepipe.codecs.chooser import TRYING
from mergepipe.errors import Corruption
from mergepipe.formats.tree import SourceFile
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.presence import Presence

if TYPE_CHECKING:  # numpy and numba: loaded only where a block is new and has a base
    from mergepipe.catalog.builder import ProfileBuilder


class DeltaEncoder:
    """Encodes the blocks of one ingest against `pairs` of a base, and collects their profile.

    pair_up    asked once, with the layout, for the pair of each tensor (None: no base)
    before     asked once after it, for the pair with the version before
    stored_as  asked once, for blocks that each tensor is likely to have in common with what is
               stored; None: whoever encodes has the index, and need not be told
    """

    def __init__(
        self,
        reader: BlockReader,
        presence: Presence,
        *,
        effort: str,
        max_chain: int,
        pair_up: Callable[[Layout], Sequence[Pair | None]],
        before: Callable[[Layout], Sequence[Pair | None]] | None = None,
        stored_as: Callable[[Layout], Sequence[tuple[tuple[BlockId, ...], ...]]] | None = None,
    ) -> None:
        self._reader = reader
        self._effort = effort
        self._max_chain = max_chain
        self._pair_up = pair_up
        # Who wants speed tries nothing.
        self._before = before if effort in TRYING else None
        self._stored_as = stored_as
        self._layout = Layout((), ())
        self._pairs: Sequence[Pair | None] = ()
        self._befores: Sequence[Pair | None] = ()
        self._stored: Sequence[tuple[tuple[BlockId, ...], ...]] = ()
        self.coder = DeltaCoder(effort, IndexedBases(reader, presence, max_chain))
        self._profile: ProfileBuilder | None = None
        # Blocks without facts: whether they have a base block. Kept until a profile is wanted.
        self._noted: list[tuple[int, int, bool]] = []

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come, and pair them with the base's."""
        self._layout = layout
        self._pairs = self._pair_up(layout)
        if self._before is not None:
            self._befores = self._before(layout)
        if self._stored_as is not None:
            self._stored = self._stored_as(layout)

    @property
    def profile(self) -> "ProfileBuilder":
        """What is known of the pairs so far. The first use loads what computes with arrays."""
        if self._profile is None:
            from mergepipe.catalog.builder import ProfileBuilder

            self._profile = ProfileBuilder()
            for number, pair in enumerate(self._pairs):
                if pair is not None and pair.has_profile():
                    self._profile.begin(number, pair)
        for tensor, index, has_base in self._noted:
            if has_base:
                self._profile.add(tensor, index, None)
            else:
                self._profile.add_unpaired(tensor, index)
        self._noted.clear()
        return self._profile

    def piece(self, source: SourceFile, spans: Sequence[Span]) -> Piece:
        """Neighbouring blocks, with all that encoding them takes."""
        tensors = {
            number: PieceTensor(
                self._layout.tensors[number],
                self._pairs[number],
                self._stored[number] if self._stored else (),
                self._befores[number] if self._befores else None,
            )
            for number in dict.fromkeys(span.tensor for span in spans)
        }
        piece = Piece(source, tuple(spans), tensors)
        if self._stored_as is None:
            return piece
        return self._placed(piece)

    def collect(self, spans: Sequence[Span], notes: Sequence[BlockNote]) -> None:
        """Put what is known of each block into the profile."""
        for span, note in zip(spans, notes, strict=True):
            pair = self._pairs[span.tensor]
            if pair is None:
                continue
            base = pair.base_block(span.index)
            if base is None or base == note.id:
                self._noted.append((span.tensor, span.index, base is not None))
            elif note.facts is not None:
                self.profile.add(span.tensor, span.index, note.facts)

    def _placed(self, piece: Piece) -> Piece:
        """With where all is that its blocks may lean on, or be; nothing if some is damaged."""
        befores = list(self._befores_of(piece))
        blocks = [*expected(piece), *self._to_try(piece), *(block for block, _ in befores)]
        wanted = list(dict.fromkeys(blocks))
        try:
            ways = self._reader.resolve(wanted)
            leaning = leaning_of(self._reader, wanted, self._max_chain)
            over = [(leaning[block], base) for block, base in befores]
            layered = frozenset(layered_over(self._reader, over, self._max_chain))
            leaning |= {followed: followed for followed, _ in layered}
        except Corruption:
            return piece
        return replace(piece, ways=ways, leaning=leaning, layered=layered)

    def _befores_of(self, piece: Piece) -> Iterator[tuple[BlockId, BlockId]]:
        """The version before of each block that may be coded or tried, and its base."""
        for number, tensor in piece.tensors.items():
            pair, before = tensor.pair, tensor.before
            if pair is None or before is None:
                continue
            coded = [span.index for span in piece.spans if span.tensor == number]
            for index in dict.fromkeys([*coded, *tried(pair)]):
                base, block = pair.base_block(index), before.base_block(index)
                if base is not None and block is not None:
                    yield block, base

    def _to_try(self, piece: Piece) -> Iterator[BlockId]:
        """Base blocks on which the codecs of the piece's tensors are tried."""
        for tensor in piece.tensors.values():
            pair = tensor.pair
            if pair is not None and self._effort != "raw":
                for index in tried(pair):
                    block = pair.base_block(index)
                    assert block is not None
                    yield block
