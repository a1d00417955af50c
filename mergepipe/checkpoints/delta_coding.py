"""Encoding against a base: hash, encode and statistics in one pass, with the base block in hand.

What becomes of a block depends on its tensor, its base and the settings, never on who encodes it or
when: a tensor's codec is tried on the same few of its blocks whoever is the first to need it.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.ingest_work import IngestWorker, Piece, PieceTensor
from mergepipe.checkpoints.layout import Span
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.codecs.chooser import choose, first_choice, samples_of
from mergepipe.codecs.protocol import Codec, MeasuringCodec
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption
from mergepipe.executors.blocks import PlacedBlocks
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import NeedsRepair
from mergepipe.formats.tree import StableReader
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block, seal_payloads
from mergepipe.packs.presence import Presence
from mergepipe.packs.records import Place
from mergepipe.packs.storage import is_whole
from mergepipe.parallel import Scratch

if TYPE_CHECKING:  # numpy and numba: loaded only where a block is new and has a base
    from mergepipe.catalog.facts import BlockFacts


@dataclass(frozen=True, slots=True)
class Base:
    """The base block of the profile, and the one the encoding leans on: usually the same."""

    declared: memoryview
    stored: BlockId
    raw: memoryview


class Bases(Protocol):
    """What the store has. May be used from any thread."""

    def known(self, piece: Piece, identities: Sequence[BlockId]) -> list[bool]:
        """Which blocks of a piece are stored, and whole."""
        ...

    def read(
        self, piece: Piece, wanted: Sequence[BlockId], *, reuse: bool = False
    ) -> dict[BlockId, Base]:
        """Base blocks; those that are damaged or missing are left out: nothing leans on them.

        `reuse`: they are good until the thread's next call that says so.
        """
        ...

    def readings(self) -> Readings:
        """What was read so far, where nobody else counts it."""
        ...


class IndexedBases:
    """What the store has, by its index."""

    def __init__(self, reader: BlockReader, presence: Presence, max_chain: int) -> None:
        self._reader = reader
        self._presence = presence
        self._max_chain = max_chain
        self._scratch = Scratch()

    def known(self, piece: Piece, identities: Sequence[BlockId]) -> list[bool]:
        """Which blocks are stored, wherever it is."""
        return self._presence.blocks(identities)

    def read(
        self, piece: Piece, wanted: Sequence[BlockId], *, reuse: bool = False
    ) -> dict[BlockId, Base]:
        """Base blocks, and for those at the end of a long chain the ancestor to lean on."""
        try:
            return self._read(wanted, reuse)
        except Corruption:
            whole = self._presence.blocks(wanted)
            return self._read(
                [block for block, have in zip(wanted, whole, strict=True) if have], reuse
            )

    def readings(self) -> Readings:
        """The reader's to count."""
        return NOTHING_READ

    def _read(self, wanted: Sequence[BlockId], reuse: bool) -> dict[BlockId, Base]:
        leaning = leaning_of(self._reader, wanted, self._max_chain)
        blocks = list(dict.fromkeys([*wanted, *leaning.values()]))
        read = self._reader.read(blocks, self._scratch if reuse else None)
        return _bases(wanted, leaning, dict(zip(blocks, read, strict=True)))


class PlacedBases:
    """What items say that the store has."""

    def __init__(self, placed: PlacedBlocks) -> None:
        self._placed = placed
        self._whole: set[Place] = set()

    def known(self, piece: Piece, identities: Sequence[BlockId]) -> list[bool]:
        """Which blocks are those that the piece expects. Raises NeedsRepair for a damaged one.

        Others may be stored as well: who takes over the packs leaves them out.
        """
        return [
            identity in _expected(piece.tensors[span.tensor], span.index)
            and self._is_whole(piece, identity)
            for span, identity in zip(piece.spans, identities, strict=True)
        ]

    def read(
        self, piece: Piece, wanted: Sequence[BlockId], *, reuse: bool = False
    ) -> dict[BlockId, Base]:
        """Base blocks. Raises NeedsRepair where one is damaged or missing."""
        if not piece.leaning.keys() >= set(wanted):
            raise NeedsRepair("a base block is damaged or missing")
        blocks = list(dict.fromkeys([*wanted, *(piece.leaning[block] for block in wanted)]))
        read = self._placed.read(blocks, piece.ways)
        return _bases(wanted, piece.leaning, dict(zip(blocks, read, strict=True)))

    def readings(self) -> Readings:
        """What was read so far."""
        return self._placed.readings()

    def _is_whole(self, piece: Piece, identity: BlockId) -> bool:
        link: BlockId | None = identity
        while link is not None:
            way = piece.ways.get(link)
            if way is None:
                raise NeedsRepair("it takes the index to tell what is stored")
            for at in way.layers:
                if at.place not in self._whole and not is_whole(self._placed.store, at):
                    raise NeedsRepair(f"block {link.hex()} is damaged")
                self._whole.add(at.place)
            link = way.base
        return True


def leaning_of(
    reader: BlockReader, wanted: Sequence[BlockId], max_chain: int
) -> dict[BlockId, BlockId]:
    """What to lean on for each block: a chain of n blocks is n - 1 deltas deep; ours adds one.

    Raises Corruption, MissingObject.
    """
    return {
        block: chain[max(0, len(chain) - max_chain)]
        for block, chain in zip(wanted, reader.chains(wanted), strict=True)
    }


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
        self._codecs: dict[tuple[object, ...], Codec] = {}
        self._choosing = threading.Lock()
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
        unders = [
            None if have else self._base_block(piece, span, identity)
            for span, identity, have in zip(piece.spans, identities, known, strict=True)
        ]
        wanted = list(dict.fromkeys(under for under in unders if under is not None))
        bases = self._bases.read(piece, wanted, reuse=True) if wanted else {}
        coding = _Coding(piece, dict(zip(piece.spans, raws, strict=True)), file)
        return [
            BlockOutcome(identity, None)
            if have
            else self._encode(coding, span, identity, None if under is None else bases.get(under))
            for span, identity, have, under in zip(
                piece.spans, identities, known, unders, strict=True
            )
        ]

    def _base_block(self, piece: Piece, span: Span, identity: BlockId) -> BlockId | None:
        pair = piece.tensors[span.tensor].pair
        if pair is None or self._effort == "raw":
            return None
        base = pair.base_block(span.index)
        return None if base == identity else base

    def _encode(
        self, coding: "_Coding", span: Span, identity: BlockId, base: Base | None
    ) -> BlockOutcome:
        tensor = coding.piece.tensors[span.tensor]
        raw, dtype, pair = coding.raws[span], tensor.tensor.dtype, tensor.pair
        if base is not None and base.stored == identity:
            base = None  # a block never leans on itself
        codec = self._codec(coding, tensor, base is not None)
        encoded: EncodedBlock
        facts: BlockFacts | None = None
        wants_facts = base is not None and pair is not None and pair.has_profile()
        if base is not None and isinstance(codec, MeasuringCodec):
            from mergepipe.catalog.facts import facts_of

            payloads, statistics = codec.encode_with_statistics(
                raw, base.raw, dtype, self._workspace
            )
            encoded = seal_payloads(identity, len(raw), codec, base.stored, payloads)
            if encoded.stored_bytes >= len(raw):
                encoded = encode_block(identity, raw, dtype, codec_named("raw"))
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

    def _codec(self, coding: "_Coding", tensor: PieceTensor, has_base: bool) -> Codec:
        """The codec of a tensor's blocks that have a base, or have none."""
        key = (coding.piece.source, tensor.tensor.start, has_base)
        with self._choosing:
            codec = self._codecs.get(key)
            if codec is None:
                codec = self._codecs[key] = self._chosen(coding, tensor, has_base)
        return codec

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
            base = self._bases.read(coding.piece, [block]).get(block)
            if base is None:
                continue
            samples = samples_of(coding.block(tensor, index), base.raw)
            if any(sample != under for sample, under in samples):
                return choose(self._effort, dtype, samples, self._workspace)
        # Where nothing changed, no codec shows what it is worth.
        return first_choice(self._effort, dtype, has_base=True)


class _Coding:
    """A piece in hand."""

    def __init__(self, piece: Piece, raws: dict[Span, memoryview], file: StableReader) -> None:
        self.piece = piece
        self.raws = raws
        self._file = file

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


def _expected(tensor: PieceTensor, index: int) -> set[BlockId]:
    """What a block may be that the store has."""
    ids = {blocks[index] for blocks in tensor.stored if index < len(blocks)}
    base = None if tensor.pair is None else tensor.pair.base_block(index)
    return ids if base is None else {*ids, base}


def expected(piece: Piece) -> list[BlockId]:
    """Stored blocks that a piece may turn out to hold."""
    return [
        block
        for span in piece.spans
        for block in sorted(_expected(piece.tensors[span.tensor], span.index))
    ]


def _bases(
    wanted: Sequence[BlockId],
    leaning: Mapping[BlockId, BlockId],
    raws: Mapping[BlockId, memoryview],
) -> dict[BlockId, Base]:
    return {block: Base(raws[block], leaning[block], raws[leaning[block]]) for block in wanted}


@dataclass(frozen=True, slots=True)
class IngestJob:
    """Storing what is new of files. `effort`: the setting `store.codec`."""

    effort: str = "auto"

    def open(self, store: ByteStore, /) -> IngestWorker:
        """Storing beside a store that has no index."""
        return IngestWorker(DeltaCoder(self.effort, PlacedBases(PlacedBlocks(store))))

    def names(self, piece: Piece, /) -> Sequence[str]:
        """The tensors of a piece; files that are none by their path."""
        return tuple(one.tensor.name or piece.source.path for one in piece.tensors.values())
