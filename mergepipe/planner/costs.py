"""What each expert block costs at each depth, from the records that the engine will read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.objects.merging import Depth
from mergepipe.objects.records import Tensor
from mergepipe.planner.reads import (
    Chain,
    EncodingSource,
    Options,
    Place,
    base_reads,
    coarse_read,
    exact_read,
    held_by,
    only_way,
)
from mergepipe.planner.steps import Grid

Bytes = npt.NDArray[np.int64]
Depths = npt.NDArray[np.uint8]
NOT_THERE = -1


@dataclass(frozen=True, slots=True)
class _Shared:
    """A step in which experts need the same records: each one's records at each depth, in bytes."""

    exact: tuple[Mapping[Place, int], ...]
    coarse: tuple[Mapping[Place, int], ...]

    def saved(self, depths: Sequence[int]) -> int:
        """Bytes that need not be read because another expert's read has them."""
        union: dict[Place, int] = {}
        total = 0
        for exact, coarse, depth in zip(self.exact, self.coarse, depths, strict=True):
            records = {Depth.EXACT: exact, Depth.COARSE: coarse}.get(Depth(depth), {})
            union.update(records)
            total += sum(records.values())
        return total - sum(union.values())


@dataclass(frozen=True, slots=True)
class TensorCosts:
    """Stored bytes of one tensor's reads; arrays have a row per expert, a column per output block.

    equal   the expert's block is the base's, or it has none
    exact   of an exact read beyond the base's; of an indivisible expert all of it, in column 0
    coarse  of a coarse read; NOT_THERE without a coarse layer over the base's block
    base    of the base's block, where a step reads it
    whole   per expert: read exactly and wholly, or not at all (its grid is another)
    shared  steps in which these sums count a record twice
    """

    equal: npt.NDArray[np.bool_]
    exact: Bytes
    coarse: Bytes
    base: Bytes
    whole: tuple[bool, ...]
    shared: Mapping[int, _Shared]

    @property
    def full(self) -> Depths:
        """The depths of the exact merge."""
        return np.where(self.equal, np.uint8(Depth.EQUAL), np.uint8(Depth.EXACT))

    def bytes_by_expert(self, depths: Depths) -> Bytes:
        """What each expert's reads cost at these depths, as if it were the only one."""
        spent = np.where(depths == Depth.EXACT, self.exact, 0)
        spent += np.where(depths == Depth.COARSE, self.coarse, 0)
        total: Bytes = spent.sum(axis=1)
        return total

    def saved_bytes(self, depths: Depths) -> int:
        """What sharing records within steps saves of their sum."""
        return sum(
            shared.saved([int(depth) for depth in depths[:, step]])
            for step, shared in self.shared.items()
        )


def tensor_costs(
    layout: Tensor,
    base: Tensor | None,
    experts: Sequence[Tensor | None],
    find: EncodingSource,
    *,
    deltas: Sequence[bool],
    every_step: bool,
) -> TensorCosts:
    """The costs of every depth of one tensor. Raises MissingObject for a block in no pack.

    layout, base  cut alike
    experts       None where one lacks the tensor
    deltas        per expert, whether it holds differences (then none of its blocks is the base's)
    every_step    whether the base is also read where no expert has anything to add to it
    """
    grid = Grid.of(layout)
    paired = [expert is None or Grid.of(expert) == grid for expert in experts]
    equal = np.zeros((len(experts), grid.blocks), np.bool_)
    for row, expert in enumerate(experts):
        if expert is None:
            equal[row] = True
        elif base is not None and not deltas[row] and expert.dtype == base.dtype and paired[row]:
            equal[row] = (_rows(expert) == _rows(base)).all(axis=1)
    filling = _Filling(
        [[] if expert is None else expert.block_ids() for expert in experts],
        [] if base is None else base.block_ids(),
        paired,
        equal,
        every_step and base is not None,
    )
    return filling.run(find) if grid.blocks else filling.costs()


class _Filling:
    """The costs of one tensor in the making."""

    def __init__(
        self,
        ids: list[list[BlockId]],
        base_ids: list[BlockId],
        paired: list[bool],
        equal: npt.NDArray[np.bool_],
        every_step: bool,
    ) -> None:
        self.every_step = every_step
        self.ids = ids
        self.base_ids = base_ids
        self.paired = paired
        self.equal = equal
        self.exact = np.zeros(equal.shape, np.int64)
        self.coarse = np.full(equal.shape, NOT_THERE, np.int64)
        self.base = np.zeros(equal.shape[1], np.int64)
        self.shared: dict[int, _Shared] = {}
        self.held: set[BlockId] = set()

    def costs(self) -> TensorCosts:
        whole = tuple(not one for one in self.paired)
        return TensorCosts(self.equal, self.exact, self.coarse, self.base, whole, self.shared)

    def run(self, find: EncodingSource) -> TensorCosts:
        untouched = self.equal.all(axis=0) & (not self.every_step)
        touched = [int(step) for step in np.flatnonzero(~untouched)]
        options = find(self._wanted(touched))
        for step in touched:
            self._step(step, options)
        for row, is_paired in enumerate(self.paired):
            if not is_paired:
                self.exact[row, 0] = _whole_bytes(self.ids[row], options, self.held)
        return self.costs()

    def _wanted(self, touched: Sequence[int]) -> set[BlockId]:
        wanted = {self.base_ids[step] for step in touched} if self.base_ids else set()
        for row, is_paired in enumerate(self.paired):
            if is_paired:
                wanted.update(self.ids[row][step] for step in np.flatnonzero(~self.equal[row]))
            else:
                wanted.update(self.ids[row])
        return wanted

    def _step(self, step: int, options: Options) -> None:
        under = base_reads(self.base_ids[step : step + 1], options)
        in_hand = held_by(under)
        self.held |= in_hand
        self.base[step] = sum(chain.stored_bytes for chain in under)
        rows = [
            row
            for row, is_paired in enumerate(self.paired)
            if is_paired and not self.equal[row, step]
        ]
        if not self._plainly(step, rows, options, in_hand):
            self._by_chains(step, rows, options, in_hand)

    def _plainly(
        self, step: int, rows: Sequence[int], options: Options, in_hand: frozenset[BlockId]
    ) -> bool:
        """The step's costs if no expert has a choice of records or shares one; else False.

        What `_by_chains` would find, at a fraction of the time: planning a large model is this.
        """
        base = self.base_ids[step] if self.base_ids else None
        blocks = [self.ids[row][step] for row in rows]
        if len(set(blocks)) < len(blocks) or not in_hand.isdisjoint(blocks):
            return False
        ways = [only_way(block, options, in_hand) for block in blocks]
        for row, way in zip(rows, ways, strict=True):
            if way is None:
                return False
            layers = way.layers
            self.exact[row, step] = sum([at.stored_bytes for at in layers])
            if len(layers) > 1 and way.base == base:
                self.coarse[row, step] = layers[0].stored_bytes
        return True

    def _by_chains(
        self, step: int, rows: Sequence[int], options: Options, in_hand: frozenset[BlockId]
    ) -> None:
        exact: dict[int, Chain] = {}
        coarse: dict[int, Chain] = {}
        for row in rows:
            chain = exact[row] = exact_read(self.ids[row][step], options, in_hand)
            self.exact[row, step] = chain.stored_bytes
            self.coarse[row, step] = NOT_THERE
            if self.base_ids:
                layer = coarse_read(chain.block, self.base_ids[step], options)
                if layer is not None:
                    coarse[row] = layer
                    self.coarse[row, step] = layer.stored_bytes
        if _overlap(exact.values()):
            everyone = range(len(self.paired))
            self.shared[step] = _Shared(
                tuple(_places(exact.get(row)) for row in everyone),
                tuple(_places(coarse.get(row)) for row in everyone),
            )


def _rows(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.blocks, np.uint8).reshape(-1, ID_BYTES)


def _whole_bytes(blocks: Sequence[BlockId], options: Options, held: Iterable[BlockId]) -> int:
    """All blocks of an expert that is cut differently, each record once."""
    in_hand = frozenset(held)
    places: dict[Place, int] = {}
    for block in blocks:
        places.update(_places(exact_read(block, options, in_hand)))
    return sum(places.values())


def _places(chain: Chain | None) -> dict[Place, int]:
    if chain is None:
        return {}
    return {(at.pack, at.offset): at.stored_bytes for at in chain.records}


def _overlap(chains: Iterable[Chain]) -> bool:
    """Whether two of the chains have a block in common."""
    seen: set[BlockId] = set()
    for chain in chains:
        for block, _ in chain.links:
            if block in seen:
                return True
            seen.add(block)
    return False
