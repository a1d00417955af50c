"""Blocks that others may lean on: of a base, and of the version before, as they are stored."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from mergepipe.checkpoints.ingest_work import Piece, PieceTensor
from mergepipe.errors import Corruption
from mergepipe.executors.blocks import PlacedBlocks
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import NeedsRepair
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.coarse_layers import anchors, coarse_links
from mergepipe.packs.presence import Presence
from mergepipe.packs.records import Place
from mergepipe.packs.storage import is_whole
from mergepipe.parallel import Scratch


class Base(Struct, frozen=True):
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

    def followed(
        self, piece: Piece, over: Sequence[tuple[BlockId, BlockId]]
    ) -> Mapping[tuple[BlockId, BlockId], BlockId]:
        """For pairs of a version before and a base, the block to follow: it, or what it leans on.

        Left out where that has no coarse layer over the base, or the chain would become too long.
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

    def followed(
        self, piece: Piece, over: Sequence[tuple[BlockId, BlockId]]
    ) -> Mapping[tuple[BlockId, BlockId], BlockId]:
        """By the index; nothing where a chain is damaged."""
        try:
            leaning = leaning_of(self._reader, [before for before, _ in over], self._max_chain)
            pairs = [(leaning[before], base) for before, base in over]
            layered = layered_over(self._reader, pairs, self._max_chain)
        except Corruption:
            return {}
        return _followed(over, leaning, layered)

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

    def followed(
        self, piece: Piece, over: Sequence[tuple[BlockId, BlockId]]
    ) -> Mapping[tuple[BlockId, BlockId], BlockId]:
        """As the piece says."""
        return _followed(over, piece.leaning, piece.layered)

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


def layered_over(
    reader: BlockReader, over: Sequence[tuple[BlockId, BlockId]], max_chain: int
) -> set[tuple[BlockId, BlockId]]:
    """Of pairs of a block and a base, those where a coarse layer of one lies over the other.

    And another one may follow it: no chain becomes too long.
    """
    options = reader.options(block for block, _ in over)
    layered = set()
    for block, base in over:
        links = coarse_links(block, base, options)
        if links is not None and len(links) < max_chain and anchors(block, options) == {base}:
            layered.add((block, base))
    return layered


def _followed(
    over: Sequence[tuple[BlockId, BlockId]],
    leaning: Mapping[BlockId, BlockId],
    layered: Collection[tuple[BlockId, BlockId]],
) -> dict[tuple[BlockId, BlockId], BlockId]:
    return {
        (before, base): leaning[before]
        for before, base in over
        if before in leaning and (leaning[before], base) in layered
    }


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
