"""Encoding against a base: hash, encode and statistics in one pass, with the base block in hand.

What becomes of a block depends on its tensor, its base and the settings, never on who encodes it or
when: a tensor's codec is tried on the same few of its blocks whoever is the first to need it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.base_blocks import Base, Bases, PlacedBases
from mergepipe.checkpoints.ingest_work import IngestWorker, Piece, PieceTensor
from mergepipe.checkpoints.layout import Span
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.codecs.chooser import choose, first_choice, sampled_bytes, samples_of
from mergepipe.codecs.protocol import Buffer, Codec, MeasuringCodec
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import U8, DType
from mergepipe.executors.blocks import PlacedBlocks
from mergepipe.executors.readings import Readings
from mergepipe.formats.tree import StableReader
from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block, seal_payloads
from mergepipe.parallel import OnceEach

if TYPE_CHECKING:  # numpy and numba: loaded only where a block is new and has a base
    from mergepipe.catalog.facts import BlockFacts
    from mergepipe.codecs.statistics import BlockStatistics

    _Made: TypeAlias = tuple[tuple[Buffer, ...], BlockStatistics]

# Who is followed for little is followed by the days after, too, once the chain is full: where a
# version moved far, and its next ones hardly, each would take what one over the base takes. So it
# is to save a tenth; one before yesterday a fifth, as tomorrow follows today where today leans on
# the base (docs/design/storing-fine-tunes.md).
_WORTH_FOLLOWING = 0.9
_WORTH_FOLLOWING_STILL = 0.8
# A coarse layer's difference from yesterday's takes at least this part of the rest, where the rest
# is as large as over the base; less where it is smaller, in proportion (measured: 0.07 to 0.17).
_LEAST_LAYER = 0.06


def tried(pair: Pair) -> list[int]:
    """Indices of the blocks on which codecs for a tensor that pairs are tried, the first first."""
    last = pair.block_count - 1
    spread = dict.fromkeys((0, last // 2, last))
    return [index for index in spread if pair.base_block(index) is not None]


class DeltaCoder:
    """Encodes blocks against their bases, or alone. May be used from any thread."""

    def __init__(self, effort: str, bases: Bases) -> None:
        self._effort = effort
        self._bases = bases
        self._codecs: OnceEach[Codec] = OnceEach()
        self._following: OnceEach[bool] = OnceEach()
        self._workspace = Workspace()

    def readings(self) -> Readings:
        """What was read so far, where nobody else counts it."""
        return self._bases.readings()

    def encode(
        self,
        piece: Piece,
        identities: Sequence[BlockId],
        raws: Sequence[memoryview],
        file: StableReader,
    ) -> list[BlockOutcome]:
        """The outcomes of neighbouring blocks; `raws` may be reused once they are in a pack."""
        known = self._bases.known(piece, identities)
        coding = _Coding(piece, dict(zip(piece.spans, raws, strict=True)), file)
        unders = [
            _NOTHING if have else self._under(coding, span, identity)
            for span, identity, have in zip(piece.spans, identities, known, strict=True)
        ]
        follows = [
            (under.before, under.base)
            for under in unders
            if under.before is not None and under.base is not None
        ]
        coding.followed = self._bases.followed(piece, follows) if follows else {}
        bases = [under.base for under in unders if under.base is not None]
        wanted = list(dict.fromkeys([*bases, *coding.followed.values()]))
        # Once for the choice of codecs and for the encoding: reading is a good part of a commit.
        coding.bases = self._bases.read(piece, wanted, reuse=True) if wanted else {}
        return [
            BlockOutcome(identity, None) if have else self._encode(coding, span, identity, under)
            for span, identity, have, under in zip(
                piece.spans, identities, known, unders, strict=True
            )
        ]

    def _under(self, coding: "_Coding", span: Span, identity: BlockId) -> "_Under":
        """What a new block may lean on."""
        tensor = coding.piece.tensors[span.tensor]
        pair, before = tensor.pair, tensor.before
        if pair is None or self._effort == "raw":
            return _NOTHING
        base = pair.base_block(span.index)
        if base is None or base == identity:
            return _NOTHING
        earlier = None if before is None else before.base_block(span.index)
        if earlier in (base, identity) or self._is_known_to_lean_on_base(coding, tensor):
            earlier = None
        return _Under(base, earlier)

    def _encode(
        self, coding: "_Coding", span: Span, identity: BlockId, under: "_Under"
    ) -> BlockOutcome:
        tensor = coding.piece.tensors[span.tensor]
        raw, dtype, pair = coding.raws[span], tensor.tensor.dtype, tensor.pair
        base = None if under.base is None else coding.bases.get(under.base)
        if base is not None and under.base is not None:
            # A block never leans on itself.
            after = coding.after(under.before, under.base, base)
            if (
                after is not None
                and after.before.stored != identity
                and self._follows(coding, tensor)
            ):
                return self._encode_after(coding, identity, span, after)
            if base.stored == identity:
                base = None
        codec = self._codec(coding, tensor, base is not None)
        encoded: EncodedBlock
        facts: BlockFacts | None = None
        wants_facts = base is not None and pair is not None and pair.has_profile()
        if base is not None and isinstance(codec, MeasuringCodec):
            from mergepipe.catalog.facts import facts_of

            payloads, statistics = codec.encode_with_statistics(
                raw, base.raw, dtype, self._workspace
            )
            encoded = _sealed(identity, raw, codec, base.stored, payloads)
            if wants_facts and pair is not None and base.declared is base.raw:
                facts = facts_of(statistics, dtype, pair.samples(span.index))
                wants_facts = False
        else:
            leaning = (base.stored, base.raw) if base is not None and codec.needs_base else None
            encoded = encode_block(identity, raw, dtype, codec, leaning, self._workspace)
        if wants_facts and pair is not None and base is not None:
            from mergepipe.catalog.facts import measure

            facts = measure(raw, base.declared, dtype, pair.samples(span.index), self._workspace)
        return BlockOutcome(identity, encoded, facts)

    def _encode_after(
        self, coding: "_Coding", identity: BlockId, span: Span, after: "_After"
    ) -> BlockOutcome:
        """A block as what changed since the version before."""
        from mergepipe.catalog.facts import facts_of

        tensor = coding.piece.tensors[span.tensor]
        dtype, pair = tensor.tensor.dtype, tensor.pair
        assert pair is not None
        raw = coding.raws[span]
        tried = coding.tried.pop((tensor.tensor.start, span.index), None)
        payloads, statistics = tried or self._payloads_after(raw, after, dtype)
        encoded = _sealed(identity, raw, codec_named("successor"), after.before.stored, payloads)
        facts = facts_of(statistics, dtype, pair.samples(span.index))
        return BlockOutcome(identity, encoded, facts)

    def _payloads_after(self, raw: memoryview, after: "_After", dtype: DType) -> "_Made":
        from mergepipe.codecs.successor import Anchor, Successor

        anchor = Anchor(after.anchor, after.trained.declared)
        return Successor().encode_after(raw, after.before.raw, anchor, dtype, self._workspace)

    def _is_known_to_lean_on_base(self, coding: "_Coding", tensor: PieceTensor) -> bool:
        return self._following.known((coding.piece.source, tensor.tensor.start)) is False

    def _follows(self, coding: "_Coding", tensor: PieceTensor) -> bool:
        """Whether a tensor's blocks are smaller as what changed since the version before."""
        codec = self._codec(coding, tensor, has_base=True)
        if not isinstance(codec, MeasuringCodec):
            return False  # they have no coarse layer to begin with
        return self._following.get(
            (coding.piece.source, tensor.tensor.start),
            lambda: self._is_smaller_after(coding, tensor, codec),
        )

    def _is_smaller_after(self, coding: "_Coding", tensor: PieceTensor, codec: Codec) -> bool:
        pair, before, dtype = tensor.pair, tensor.before, tensor.tensor.dtype
        assert pair is not None and before is not None
        for index in tried(pair):
            base, earlier = pair.base_block(index), before.base_block(index)
            if base is None or earlier is None or base == earlier:
                continue
            followed = self._followed(coding, earlier, base)
            trained = self._base(coding, base)
            under = None if followed is None else self._base(coding, followed)
            if trained is None or under is None:
                continue
            raw = coding.block(tensor, index)
            if raw == under.raw:
                continue  # what did not change shows nothing
            worth = _WORTH_FOLLOWING if followed == earlier else _WORTH_FOLLOWING_STILL
            over_base, over_before = (
                self._share(codec, dtype, raw, other) for other in (trained.raw, under.raw)
            )
            least = over_before * (1 + _LEAST_LAYER * over_before / over_base)
            if least >= worth * over_base:
                return False  # told without coding it
            coded = self._payloads_after(raw, _After(under, base, trained), dtype)
            coding.tried[tensor.tensor.start, index] = coded
            return sum(map(len, coded[0])) < worth * over_base * len(raw)
        return False

    def _share(self, codec: Codec, dtype: DType, raw: memoryview, base: memoryview) -> float:
        """What of a block a codec leaves over a base, by samples."""
        samples = samples_of(raw, base)
        sampled = sum(len(sample) for sample, _ in samples)
        return sampled_bytes(codec, dtype, samples, self._workspace) / sampled

    def _base(self, coding: "_Coding", block: BlockId) -> Base | None:
        """A base that is in hand, or read for a choice of codec."""
        held = coding.bases.get(block)
        return held if held is not None else self._bases.read(coding.piece, [block]).get(block)

    def _followed(self, coding: "_Coding", before: BlockId, base: BlockId) -> BlockId | None:
        over = (before, base)
        if over in coding.followed:
            return coding.followed[over]
        return self._bases.followed(coding.piece, [over]).get(over)

    def _codec(self, coding: "_Coding", tensor: PieceTensor, has_base: bool) -> Codec:
        """The codec of a tensor's blocks that have a base, or have none."""
        return self._codecs.get(
            (coding.piece.source, tensor.tensor.start, has_base),
            lambda: self._chosen(coding, tensor, has_base),
        )

    def _chosen(self, coding: "_Coding", tensor: PieceTensor, has_base: bool) -> Codec:
        dtype = tensor.tensor.dtype
        if not has_base:
            samples = samples_of(coding.block(tensor, 0), None)
            return choose(self._effort, dtype, samples, self._workspace)
        pair = tensor.pair
        assert pair is not None
        for index in tried(pair):
            block = pair.base_block(index)
            assert block is not None
            base = self._base(coding, block)
            if base is None:
                continue
            samples = samples_of(coding.block(tensor, index), base.raw)
            if any(sample != under for sample, under in samples):
                return choose(self._effort, dtype, samples, self._workspace)
        # Where nothing changed, no codec shows what it is worth.
        return first_choice(self._effort, dtype, has_base=True)


class _Under(Struct, frozen=True):
    """The blocks of the base and of the version before that a new block may lean on."""

    base: BlockId | None = None
    before: BlockId | None = None


_NOTHING = _Under()


class _After(Struct, frozen=True):
    """The version before, and the block called `anchor` that both were trained from."""

    before: Base
    anchor: BlockId
    trained: Base


def _sealed(
    identity: BlockId,
    raw: memoryview,
    codec: Codec,
    base: BlockId,
    payloads: tuple[Buffer, ...],
) -> EncodedBlock:
    """The block by its payloads; raw where that would not be smaller."""
    encoded = seal_payloads(identity, len(raw), codec, base, payloads)
    if encoded.stored_bytes < len(raw):
        return encoded
    return encode_block(identity, raw, U8, codec_named("raw"))


class _Coding:
    """A piece in hand.

    bases     what its blocks may lean on
    followed  of pairs of a version before and a base, the block to follow
    tried     what was made of a block to see whether its tensor follows, by tensor and index
    """

    def __init__(self, piece: Piece, raws: dict[Span, memoryview], file: StableReader) -> None:
        self.piece = piece
        self.raws = raws
        self.bases: Mapping[BlockId, Base] = {}
        self.followed: Mapping[tuple[BlockId, BlockId], BlockId] = {}
        self._file = file
        self.tried: dict[tuple[int, int], _Made] = {}

    def after(self, before: BlockId | None, anchor: BlockId, trained: Base) -> "_After | None":
        """What a block may follow, where there is that and it is in hand."""
        if before is None:
            return None
        followed = self.followed.get((before, anchor))
        held = None if followed is None else self.bases.get(followed)
        return None if held is None else _After(held, anchor, trained)

    def block(self, tensor: PieceTensor, index: int) -> memoryview:
        """A block of a tensor of the piece, also where it is not of the piece itself."""
        one = tensor.tensor
        start = one.start + index * one.block_bytes
        end = min(one.end, start + one.block_bytes)
        for span, raw in self.raws.items():
            if (span.start, span.end) == (start, end):
                return raw
        raw = memoryview(bytearray(end - start))
        self._file.read_into(start, raw)
        return raw


class IngestJob(Struct, frozen=True):
    """Storing what is new of files. `effort`: the setting `store.codec`."""

    effort: str = "auto"

    def open(self, store: ByteStore, /) -> IngestWorker:
        """Storing beside a store that has no index."""
        return IngestWorker(DeltaCoder(self.effort, PlacedBases(PlacedBlocks(store))))

    def names(self, piece: Piece, /) -> Sequence[str]:
        """The tensors of a piece; files that are none by their path."""
        return tuple(one.tensor.name or piece.source.path for one in piece.tensors.values())
