"""Which records a step reads: the one place where planner and engine decide it.

The base's block is read first, by the fewest bytes; it and the blocks it leans on are then in hand.
An expert's block is read exactly by the encoding that takes the fewest bytes beyond those, or
coarsely by layer 0 of an encoding that leans on the base's block. A record that two experts need
is read once in a step, and counts for the first of them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import NO_ID, BlockId, PackId
from mergepipe.objects.merging import Depth
from mergepipe.packs.encodings import DEEPEST_CHAIN, Encoding, encodings
from mergepipe.packs.index import Location
from mergepipe.packs.storage import Storage

# Every complete encoding of each block.
Options: TypeAlias = Mapping[BlockId, Sequence[Encoding]]
# Finds the encodings of blocks and of all blocks they may lean on.
EncodingSource: TypeAlias = Callable[[Iterable[BlockId]], Options]
Place: TypeAlias = tuple[PackId, int]


@dataclass(frozen=True, slots=True)
class Chain:
    """How one block is read to a depth.

    links  the block itself, then the blocks it leans on, each with the encoding to read; the last
           leans on nothing, or on a block that is in hand. Coarse: the block alone.
    """

    block: BlockId
    depth: Depth
    links: tuple[tuple[BlockId, Encoding], ...]

    @property
    def records(self) -> tuple[Location, ...]:
        """All records to read."""
        if self.depth is Depth.COARSE:
            return (self.links[0][1].layers[0],)
        return tuple(at for _, encoding in self.links for at in encoding.layers)

    @property
    def stored_bytes(self) -> int:
        """What reading them costs."""
        return sum(at.stored_bytes for at in self.records)


@dataclass(frozen=True, slots=True)
class StepReads:
    """All reads of one step: of the base, and per expert."""

    base: tuple[Chain, ...]
    experts: tuple[tuple[Chain, ...], ...]

    def base_records(self) -> dict[Place, Location]:
        """The base's records, each once."""
        return {(at.pack, at.offset): at for chain in self.base for at in chain.records}

    def expert_records(self) -> dict[Place, Location]:
        """The experts' records, each once, without those that the base needs too."""
        known = self.base_records()
        return {
            place: at
            for chains in self.experts
            for chain in chains
            for at in chain.records
            if (place := (at.pack, at.offset)) not in known
        }


def stored_encodings(storage: Storage) -> EncodingSource:
    """The source that looks into a store's index, each call in one read transaction."""

    def find(blocks: Iterable[BlockId]) -> Options:
        wanted = sorted(set(blocks))  # neighbours in the index are found faster
        found = storage.ask(lambda view: _closure(wanted, view.block))
        if any(not ways for ways in found.values()) and storage.refresh():
            # "Not there" is confirmed against the packs before it is believed.
            found = storage.ask(lambda view: _closure(wanted, view.block))
        return found

    return find


def _closure(
    wanted: Sequence[BlockId], look_up: Callable[[BlockId], Iterable[Location]]
) -> dict[BlockId, list[Encoding]]:
    found: dict[BlockId, list[Encoding]] = {}
    todo = wanted
    for _ in range(DEEPEST_CHAIN + 1):
        bases: set[BlockId] = set()
        for block in todo:
            ways = found[block] = _ways(list(look_up(block)))
            bases.update(way.base for way in ways if way.base is not None)
        todo = sorted(bases - found.keys())
        if not todo:
            break
    return found


def _ways(locations: list[Location]) -> list[Encoding]:
    """As `encodings`, sooner done where a block is stored in one way, as nearly all are."""
    if locations and len(locations) == locations[0].layers:
        first = locations[0]
        one = (first.base, first.codec, first.version)
        if all(
            at.layer == layer and (at.base, at.codec, at.version) == one
            for layer, at in enumerate(locations)
        ):
            return [
                Encoding(BlockId(first.base) if first.base != NO_ID else None, tuple(locations))
            ]
    return encodings(locations)


def only_way(block: BlockId, options: Options, in_hand: Collection[BlockId]) -> Encoding | None:
    """How to read a block exactly where there is just one way, and its base is in hand."""
    ways = options.get(block, ())
    if len(ways) == 1 and (ways[0].base is None or ways[0].base in in_hand):
        return ways[0]
    return None


def exact_read(block: BlockId, options: Options, in_hand: Collection[BlockId] = ()) -> Chain:
    """How to read a block wholly by the fewest bytes; nothing for one that is in hand.

    Ties go to the shorter chain, then to the smaller codec tag and base id. Raises MissingObject.
    """
    links = _cheapest(block, options, in_hand, ())
    if links is None:
        raise _unreadable(block, options)
    return Chain(block, Depth.EXACT, links)


_Links: TypeAlias = tuple[tuple[BlockId, Encoding], ...]


def _cheapest(
    block: BlockId, options: Options, in_hand: Collection[BlockId], above: tuple[BlockId, ...]
) -> _Links | None:
    if block in in_hand:
        return ()
    only = only_way(block, options, in_hand)
    if only is not None:
        return ((block, only),)  # nearly always
    ways = options.get(block, ())
    if len(above) > DEEPEST_CHAIN:
        return None
    best: tuple[tuple[int, int, int, int, bytes], _Links] | None = None
    for way in ways:
        rest = _below(way, block, options, in_hand, above)
        if rest is None:
            continue
        total = way.stored_bytes + sum(link.stored_bytes for _, link in rest)
        first = way.layers[0]
        rank = (total, len(rest), first.codec, first.version, way.base or b"")
        if best is None or rank < best[0]:
            best = (rank, ((block, way), *rest))
    return None if best is None else best[1]


def _below(
    way: Encoding,
    block: BlockId,
    options: Options,
    in_hand: Collection[BlockId],
    above: tuple[BlockId, ...],
) -> _Links | None:
    """What an encoding leans on; None if that cannot be read or leads back here."""
    if way.base is None:
        return ()
    if way.base in above:
        return None
    return _cheapest(way.base, options, in_hand, (*above, block))


def coarse_read(block: BlockId, base: BlockId, options: Options) -> Chain | None:
    """How to read a block's coarse layer over the merge base's block; None if it has none."""
    best: tuple[tuple[int, int, int], Encoding] | None = None
    for way in options.get(block, ()):
        if way.base == base and len(way.layers) > 1:
            first = way.layers[0]
            rank = (first.stored_bytes, first.codec, first.version)
            if best is None or rank < best[0]:
                best = (rank, way)
    return None if best is None else Chain(block, Depth.COARSE, ((block, best[1]),))


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


@dataclass(frozen=True, slots=True)
class Wanted:
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
    return StepReads(base, tuple(tuple(_reads(options, one, in_hand)) for one in inputs))


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


def _unreadable(block: BlockId, options: Options) -> Corruption:
    """Why no encoding of a block will do: follow its first bases to what is missing."""
    at, seen = block, {block}
    while options.get(at):
        base = options[at][0].base
        if base is None or base in seen:
            return Corruption(f"block {block.hex()}: its bases never end")
        seen.add(base)
        at = base
    return MissingObject(
        f"block {at.hex()} is in no pack",
        "mp fsck tells what else is missing; mp fetch may bring it back",
    )
