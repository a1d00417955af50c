"""Which of a block's records to read: complete encodings, shortest chain first, damage avoided."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import NO_ID, BlockId, PackId
from mergepipe.packs.index import Location
from mergepipe.packs.storage import Storage

# Chains are short by rule (store.max_chain); this only stops a hostile one.
DEEPEST_CHAIN = 16
_MOST_LOOKS = 3

Place = tuple[PackId, int]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One complete way a block is stored: a record for each layer, in order."""

    base: BlockId | None
    layers: tuple[Location, ...]

    @property
    def stored_bytes(self) -> int:
        """What reading all layers costs, without the base."""
        return sum(location.stored_bytes for location in self.layers)

    @property
    def raw_length(self) -> int:
        """Length of the block in bytes."""
        return self.layers[0].raw_length


def encodings(
    locations: Iterable[Location], avoid: Collection[Place] = frozenset()
) -> list[Encoding]:
    """The complete encodings among the records of one block; ones without a base first.

    Of several copies of a record the first counts whose place is not one to `avoid`.
    """
    groups: dict[tuple[bytes, int, int, int, int], dict[int, Location]] = {}
    for at in locations:
        if (at.pack, at.offset) not in avoid:
            key = (at.base, at.codec, at.version, at.layers, at.raw_length)
            groups.setdefault(key, {}).setdefault(at.layer, at)
    found = [
        Encoding(
            None if key[0] == NO_ID else BlockId(key[0]),
            tuple(layers[layer] for layer in range(key[3])),
        )
        for key, layers in groups.items()
        if layers.keys() == set(range(key[3]))
    ]
    return sorted(found, key=lambda encoding: (encoding.base is not None, encoding.stored_bytes))


def choose(
    storage: Storage,
    blocks: Iterable[BlockId],
    avoid: Collection[Place] = frozenset(),
    *,
    confirm: bool = True,
) -> dict[BlockId, Encoding]:
    """The encoding to read for each block and for every base that it needs.

    The shortest chain of bases, then the fewest bytes along it. Raises MissingObject naming the
    first block that cannot be read and what is missing, Corruption for bases without an end.
    A loss is confirmed against the packs before it is reported; without `confirm` the index is
    believed, for those who ask block by block after they asked for all.
    """
    wanted = list(dict.fromkeys(blocks))
    for _ in range(_MOST_LOOKS):
        rebuilds = storage.rebuilds
        options = _options(storage, wanted, avoid, confirm)
        best = _cheapest(options)
        lost = {block for block in options if block not in best}
        # Damage that is to be avoided explains a loss; else the index may be what is damaged.
        if not (lost and confirm) or avoid or not storage.recover(lost, rebuilds):
            break
    for block in wanted:
        if block not in best:
            raise _unreadable(block, options)
    chosen: dict[BlockId, Encoding] = {}
    stack = wanted[::-1]
    while stack:
        block = stack.pop()
        if block not in chosen:
            chosen[block] = best[block]
            base = best[block].base
            if base is not None:
                stack.append(base)
    return chosen


def _options(
    storage: Storage, wanted: Iterable[BlockId], avoid: Collection[Place], confirm: bool
) -> dict[BlockId, list[Encoding]]:
    """Every complete encoding of the blocks and of all bases they might need."""
    options: dict[BlockId, list[Encoding]] = {}
    todo = list(wanted)
    refreshed = not confirm
    for _ in range(DEEPEST_CHAIN + 1):
        found = _look(storage, todo, avoid)
        if not refreshed and any(not ways for ways in found.values()):
            # "Not there" is confirmed against the packs before it is believed.
            refreshed = True
            storage.refresh()
            found = _look(storage, todo, avoid)
        options.update(found)
        todo = list(
            dict.fromkeys(
                way.base
                for ways in found.values()
                for way in ways
                if way.base is not None and way.base not in options
            )
        )
        if not todo:
            break
    return options


def _look(
    storage: Storage, blocks: list[BlockId], avoid: Collection[Place]
) -> dict[BlockId, list[Encoding]]:
    return storage.ask(
        lambda view: {block: encodings(view.block(block), avoid) for block in blocks}
    )


def _cheapest(options: dict[BlockId, list[Encoding]]) -> dict[BlockId, Encoding]:
    """The best encoding of every block that can be read at all, by rounds of chain length."""
    cost: dict[BlockId, int] = {}
    best: dict[BlockId, Encoding] = {}
    for _ in range(DEEPEST_CHAIN + 1):
        round_best: dict[BlockId, tuple[int, Encoding]] = {}
        for block, ways in options.items():
            if block in best:
                continue
            for way in ways:
                if way.base is not None and way.base not in best:
                    continue
                total = way.stored_bytes + (0 if way.base is None else cost[way.base])
                if block not in round_best or total < round_best[block][0]:
                    round_best[block] = (total, way)
        if not round_best:
            break
        for block, (total, way) in round_best.items():
            cost[block], best[block] = total, way
    return best


def _unreadable(block: BlockId, options: dict[BlockId, list[Encoding]]) -> Corruption:
    """Why no encoding of a block will do: follow its first bases to what is missing."""
    at, seen = block, {block}
    while options.get(at):
        base = options[at][0].base
        if base is None or base in seen or base not in options:
            return Corruption(f"block {block.hex()}: its bases never end")
        seen.add(base)
        at = base
    needed = "" if at == block else f" (block {block.hex()[:12]} is stored as its difference)"
    return MissingObject(
        f"block {at.hex()} is in no pack{needed}",
        "mp fsck tells what else is missing; mp fetch may bring it back",
    )
