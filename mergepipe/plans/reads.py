"""Which records a step reads: the one place where planner and engine decide it.

The base's block is read first, by the fewest bytes; it and the blocks it leans on are then in hand.
An expert's block is read exactly by the encoding that takes the fewest bytes beyond those, or
coarsely by layer 0 of an encoding that leans on the base's block, or by a chain of layers 0 down to
one (packs.coarse_layers). A record that two experts need
is read once in a step, and counts for the first of them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from mergepipe.errors import MissingObject
from mergepipe.ids import BlockId
from mergepipe.objects.depths import Depth
from mergepipe.packs.choice import Options, cheapest, unreadable_block
from mergepipe.packs.coarse_layers import coarse_links
from mergepipe.packs.id_arrays import Ids
from mergepipe.packs.only_ways import OnlyWays
from mergepipe.packs.records import Encoding, Location, Place


class EncodingSource(Protocol):
    """Where it is known how blocks are stored."""

    def encodings(self, blocks: Iterable[BlockId], /) -> Options:
        """Every encoding of blocks and of all blocks they may lean on."""
        ...

    def only_ways(self, ids: Ids, /) -> OnlyWays:
        """Those of blocks that have just one: for very many, in arrays."""
        ...


class Chain(Struct, frozen=True, gc=False):
    """How one block is read to a depth.

    links  the block itself, then the blocks it leans on, each with the encoding to read; the last
           leans on nothing, or on a block that is in hand. Coarse: the last leans on the base's
           block, and of each layer 0 is read.
    """

    block: BlockId
    depth: Depth
    links: tuple[tuple[BlockId, Encoding], ...]

    @property
    def records(self) -> tuple[Location, ...]:
        """All records to read."""
        if self.depth is Depth.COARSE:
            return tuple(encoding.layers[0] for _, encoding in self.links)
        return tuple(at for _, encoding in self.links for at in encoding.exact)

    @property
    def stored_bytes(self) -> int:
        """What reading them costs."""
        return sum(at.stored_bytes for at in self.records)


class StepReads(Struct, frozen=True, gc=False):
    """All reads of one step: of the base, and per expert."""

    base: tuple[Chain, ...]
    experts: tuple[tuple[Chain, ...], ...]

    def records(self) -> dict[Place, Location]:
        """All records, each once."""
        chains = [*self.base, *(chain for one in self.experts for chain in one)]
        return {at.place: at for chain in chains for at in chain.records}

    def base_records(self) -> dict[Place, Location]:
        """The base's records, each once."""
        return {at.place: at for chain in self.base for at in chain.records}

    def expert_records(self) -> dict[Place, Location]:
        """The experts' records, each once, without those that the base needs too."""
        known = self.base_records()
        return {
            place: at
            for chains in self.experts
            for chain in chains
            for at in chain.records
            if (place := at.place) not in known
        }


def only_way(block: BlockId, options: Options, in_hand: Collection[BlockId]) -> Encoding | None:
    """How to read a block exactly where there is just one way, and its base is in hand."""
    ways = options.get(block, ())
    if len(ways) == 1 and (ways[0].base is None or ways[0].base in in_hand):
        return ways[0]
    return None


def exact_read(block: BlockId, options: Options, in_hand: Collection[BlockId] = ()) -> Chain:
    """How to read a block wholly by the fewest bytes; nothing for one that is in hand.

    Raises MissingObject.
    """
    if block in in_hand:
        return Chain(block, Depth.EXACT, ())
    only = only_way(block, options, in_hand)
    if only is not None:
        return Chain(block, Depth.EXACT, ((block, only),))  # nearly always
    best = cheapest([block], options, in_hand)
    links: list[tuple[BlockId, Encoding]] = []
    link: BlockId | None = block
    while link is not None and link not in in_hand:
        if link not in best:
            raise unreadable_block(block, options)
        links.append((link, best[link]))
        link = best[link].base
    return Chain(block, Depth.EXACT, tuple(links))


def coarse_read(block: BlockId, base: BlockId, options: Options) -> Chain | None:
    """How to read a block's coarse layer over the merge base's block; None if it has none."""
    links = coarse_links(block, base, options)
    return None if links is None else Chain(block, Depth.COARSE, links)


def base_reads(blocks: Iterable[BlockId], options: Options) -> tuple[Chain, ...]:
    """How to read the bases' blocks of a step."""
    return whole_reads(blocks, options, set())


def whole_reads(
    blocks: Iterable[BlockId], options: Options, held: set[BlockId]
) -> tuple[Chain, ...]:
    """How to read blocks one after the other, `held` being in hand, and all of them then."""
    chains: list[Chain] = []
    for block in blocks:
        chain = exact_read(block, options, held)
        held.update(link for link, _ in chain.links)
        chains.append(chain)
    return tuple(chains)


def held_by(chains: Iterable[Chain]) -> frozenset[BlockId]:
    """The blocks that are in hand once these are read."""
    return frozenset(link for chain in chains for link, _ in chain.links)


class Wanted(Struct, frozen=True, gc=False):
    """One input of a step: its blocks, how deep, and the base's block under a coarse reading."""

    blocks: tuple[BlockId, ...]
    depth: Depth
    over: BlockId | None = None


def step_reads(
    options: Options, base_blocks: Sequence[BlockId], inputs: Sequence[Wanted]
) -> StepReads:
    """All reads of a step.

    base_blocks  of all bases, under the step; none where no base is read

    Raises MissingObject naming a block, Corruption where a planned coarse layer is not there.
    """
    base = base_reads(base_blocks, options)
    in_hand = held_by(base)
    return StepReads(base, tuple(tuple(_reads(options, term, in_hand)) for term in inputs))


def _reads(options: Options, wanted: Wanted, in_hand: frozenset[BlockId]) -> Iterator[Chain]:
    if wanted.depth is Depth.EXACT:
        for block in wanted.blocks:
            yield exact_read(block, options, in_hand)
    elif wanted.depth is Depth.COARSE:
        for block in wanted.blocks:
            base = wanted.over
            chain = None if base is None else coarse_read(block, base, options)
            if chain is None:
                under = "" if base is None else f" over {base.hex()[:12]}"
                raise MissingObject(
                    f"block {block.hex()} has no coarse layer{under}",
                    "mp analyze makes it; a plan that reads exactly does not need it",
                )
            yield chain
