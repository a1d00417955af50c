"""Which of a block's records to read: of the complete encodings, the one that costs least."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId
from mergepipe.packs.condemned import HEALING
from mergepipe.packs.records import Encoding, Location, Place, encodings
from mergepipe.packs.storage import Storage

# Chains are short by rule (store.max_chain); this only stops a hostile one.
DEEPEST_CHAIN = 16
_MOST_LOOKS = 3

Options: TypeAlias = Mapping[BlockId, Sequence[Encoding]]
"""Every complete encoding of some blocks, and of the blocks that these may lean on."""


def choose(
    storage: Storage,
    blocks: Iterable[BlockId],
    avoid: Collection[Place] = frozenset(),
    *,
    confirm: bool = True,
) -> dict[BlockId, Encoding]:
    """The encoding to read for each block and for every base that it needs.

    The fewest bytes in all; see `cheapest`. Raises MissingObject naming the
    first block that cannot be read and what is missing, Corruption for bases without an end.
    A loss is confirmed against the packs before it is reported; without `confirm` the index is
    believed, for those who ask block by block after they asked for all.
    """
    wanted = list(dict.fromkeys(blocks))
    for _ in range(_MOST_LOOKS):
        rebuilds = storage.rebuilds
        options = stored_encodings(storage, wanted, avoid, confirm=confirm)
        best = cheapest(wanted, options)
        lost = [block for block in wanted if block not in best]
        # Damage that is to be avoided explains a loss; else the index may be what is damaged.
        if not lost or not confirm or avoid:
            break
        unreadable = {block for block in options if block not in best}
        if not storage.recover(unreadable, rebuilds):
            break
    if lost:
        raise unreadable_block(lost[0], options)
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


def stored_encodings(
    storage: Storage,
    blocks: Iterable[BlockId],
    avoid: Collection[Place] = frozenset(),
    *,
    confirm: bool = True,
) -> dict[BlockId, list[Encoding]]:
    """Every complete encoding of the blocks and of all bases they might need.

    "Not there" is confirmed against the packs before it is believed, unless `confirm` is False.
    """
    wanted = sorted(set(blocks))  # neighbours in the index are found faster
    options = storage.ask(lambda view: _closure(wanted, view.block, avoid))
    if confirm and not all(options.values()) and storage.refresh():
        options = storage.ask(lambda view: _closure(wanted, view.block, avoid))
    return options


def _closure(
    wanted: Sequence[BlockId],
    look_up: Callable[[BlockId], Sequence[Location]],
    avoid: Collection[Place],
) -> dict[BlockId, list[Encoding]]:
    options: dict[BlockId, list[Encoding]] = {}
    todo = wanted
    for _ in range(DEEPEST_CHAIN + 1):
        bases: set[BlockId] = set()
        for block in todo:
            ways = options[block] = encodings(look_up(block), avoid)
            bases.update(way.base for way in ways if way.base is not None)
        todo = sorted(bases - options.keys())
        if not todo:
            break
    return options


def cheapest(
    blocks: Iterable[BlockId], options: Options, in_hand: Collection[BlockId] = frozenset()
) -> dict[BlockId, Encoding]:
    """How to read blocks by the fewest bytes each, beyond those of blocks that are `in_hand`.

    Blocks that they lean on are in the result too; what cannot be read is not. Ties go to the
    shorter chain, then to the smaller codec tag, version and base id.
    """
    below = _below(blocks, options, in_hand)
    ranks: dict[BlockId, tuple[int, int, int, int, bytes]] = {}
    best: dict[BlockId, Encoding] = {}
    # Shortest paths: costs are positive, so what is best leans on what is best, never on itself.
    changed = True
    while changed:
        changed = False
        for block in below:
            for way in options.get(block, ()):
                size, links = 0, 0
                if way.base is not None and way.base not in in_hand:
                    rank = ranks.get(way.base)
                    if rank is None or rank[1] > DEEPEST_CHAIN:
                        continue
                    size, links = rank[:2]
                header = way.header
                cost = (
                    size + way.exact_bytes,
                    links + 1,
                    header.codec,
                    header.version,
                    way.base or b"",
                )
                if block not in ranks or cost < ranks[block]:
                    ranks[block], best[block] = cost, way
                    changed = True
    return best


def _below(
    blocks: Iterable[BlockId], options: Options, in_hand: Collection[BlockId]
) -> list[BlockId]:
    """Blocks and what they may lean on, as far as it is not in hand; bases mostly first."""
    order: dict[BlockId, None] = {}
    todo = list(blocks)
    while todo:
        block = todo.pop()
        if block in order or block in in_hand:
            continue
        order[block] = None
        todo += [way.base for way in options.get(block, ()) if way.base is not None]
    return list(order)[::-1]


def unreadable_block(block: BlockId, options: Options) -> Corruption:
    """Why no encoding of a block will do: follow its first bases to what is missing."""
    at, seen = block, {block}
    while ways := options.get(at):
        base = ways[0].base
        if base is None or base in seen or base not in options:
            return Corruption(f"block {block.hex()}: its bases never end")
        seen.add(base)
        at = base
    needed = "" if at == block else f" (block {block.hex()[:12]} is stored as its difference)"
    return MissingObject(
        f"block {at.hex()} is in no pack{needed}",
        HEALING,
    )
