"""Which encoding of a block travels: as it is stored, wherever its base will be at the other side.

All blocks of a push are *candidates*, those that the other side turns out to hold included: what is
chosen, and so how blocks fall into packs, is the same when an interrupted push is tried again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from mergepipe.bytestore.protocol import Holding
from mergepipe.errors import MissingObject
from mergepipe.ids import BlockId
from mergepipe.packs.condemned import HEALING
from mergepipe.packs.records import Encoding, encodings
from mergepipe.packs.storage import Storage


class Choice(Struct, frozen=True):
    """How one block is to travel.

    `encoding` as it is stored; None: there is none that the other side could read, so the block is
    encoded anew, against `base` (which it will have) or without one. `base` is also the stored
    encoding's. `held`: the block is there already.
    """

    block: BlockId
    held: bool
    encoding: Encoding | None
    base: BlockId | None


class _Decision(Struct, frozen=True):
    encoding: Encoding | None
    base: BlockId | None
    depth: int


class Chooser:
    """Chooses for batches of candidates, in their order. Used from one thread.

    `held` says of every candidate whether it is there; of other blocks `holding` is asked.
    """

    def __init__(
        self,
        storage: Storage,
        holding: Holding,
        candidates: Collection[BlockId],
        held: Mapping[bytes, bool],
        *,
        max_chain: int,
    ) -> None:
        self._storage = storage
        self._holding = holding
        self._candidates = candidates
        self._candidates_held = held
        self._max_chain = max_chain
        self._held: dict[BlockId, bool] = {}
        # How many deltas deep a candidate will be at the other side.
        self._depths: dict[BlockId, int] = {}
        self._options: dict[BlockId, list[Encoding]] = {}

    def choose(self, blocks: Sequence[BlockId]) -> list[Choice]:
        """A choice for each block. Raises MissingObject for one that is not here."""
        self._look_up(blocks)
        return [self._choice(block) for block in blocks]

    def _choice(self, block: BlockId) -> Choice:
        decided = self._decide(block, self._max_chain, frozenset())
        return Choice(block, self._candidates_held[block], decided.encoding, decided.base)

    def _decide(self, block: BlockId, most: int, above: frozenset[BlockId]) -> "_Decision":
        """The smallest encoding that the other side can read, at most `most` deltas deep.

        `above`: the blocks that would lean on this one. What was once decided of a block's depth
        holds, for others rely on it: so no chain grows, or closes, later.
        """
        most = min(most, self._depths.get(block, most))
        here = above | {block}
        for way in sorted(self._of(block), key=_bytes):
            depth = self._depth_over(way.base, most, here)
            if depth is not None:
                self._depths[block] = depth
                return _Decision(way, way.base, depth)
        base, depth = self._base_for(block, most, here)
        self._depths[block] = depth
        return _Decision(None, base, depth)

    def _depth_over(self, base: BlockId | None, most: int, above: frozenset[BlockId]) -> int | None:
        """Depth of a delta over `base` at the other side; None if it could not be read there."""
        if base is None:
            return 0
        if most < 1 or base in above:
            return None
        if base not in self._candidates:
            # How deep it is there, only the other side knows; here it is below `max_chain`.
            return 1 if self._is_held([base])[base] else None
        depth = self._depths.get(base)
        if depth is None:
            depth = self._decide(base, most - 1, above).depth
        return depth + 1 if depth + 1 <= most else None

    def _base_for(
        self, block: BlockId, most: int, above: frozenset[BlockId]
    ) -> tuple[BlockId | None, int]:
        """The nearest block below this one that the other side will have, and the depth over it."""
        seen = {block}
        at = block
        while True:
            below = next((way.base for way in self._of(at) if way.base is not None), None)
            if below is None or below in seen:
                return None, 0
            depth = self._depth_over(below, most, above)
            if depth is not None:
                return below, depth
            seen.add(below)
            at = below

    def _look_up(self, blocks: Sequence[BlockId]) -> None:
        """Encodings of a batch and of all below it, and which of them are held: few questions."""
        self._options.clear()
        todo: list[BlockId] = list(blocks)
        while todo:
            self._options.update(self._encodings(todo))
            todo = list(
                dict.fromkeys(
                    way.base
                    for block in todo
                    for way in self._options[block]
                    if way.base is not None and way.base not in self._options
                )
            )
        others = [block for block in self._options if block not in self._candidates]
        self._held = {block: self._held[block] for block in others if block in self._held}
        self._is_held(others)

    def _is_held(self, blocks: Iterable[BlockId]) -> Mapping[BlockId, bool]:
        unknown = [block for block in blocks if block not in self._held]
        if unknown:
            self._held.update(zip(unknown, self._holding.holds(unknown), strict=True))
        return self._held

    def _of(self, block: BlockId) -> list[Encoding]:
        if block not in self._options:
            self._options.update(self._encodings([block]))
        return self._options[block]

    def _encodings(self, blocks: Sequence[BlockId]) -> dict[BlockId, list[Encoding]]:
        answers = self._ask(blocks)
        if any(not ways for ways in answers.values()):
            # "Not there" is confirmed against the packs before it is believed.
            self._storage.refresh()
            answers = self._ask(blocks)
        for block, ways in answers.items():
            if not ways and block in self._candidates:
                raise MissingObject(
                    f"block {block.hex()} is in no pack",
                    HEALING,
                )
        return answers

    def _ask(self, blocks: Sequence[BlockId]) -> dict[BlockId, list[Encoding]]:
        return self._storage.ask(
            lambda view: {block: encodings(view.block(block)) for block in blocks}
        )


def _bytes(encoding: Encoding) -> tuple[int, bytes]:
    return encoding.stored_bytes, encoding.base or b""
