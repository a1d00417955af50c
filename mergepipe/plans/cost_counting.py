"""What each block of a line's inputs costs at each depth, from the records the engine will read.

A line is looked at with all lines under it (`trees`): they are computed in the same step.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import LinePlan, LowRank
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import Tensors
from mergepipe.packs.choice import Options
from mergepipe.packs.id_arrays import ID_DTYPE, NO_IDS, distinct, rows_of, whole
from mergepipe.packs.only_ways import OnlyWays
from mergepipe.packs.records import Place
from mergepipe.plans.costs import NOT_THERE, SharedReads, TensorCosts
from mergepipe.plans.equality import equal_blocks, stored_base
from mergepipe.plans.reads import (
    Chain,
    EncodingSource,
    base_reads,
    coarse_read,
    exact_read,
    held_by,
    whole_reads,
)
from mergepipe.plans.trees import Tree
from mergepipe.plans.units import together

Blocks = npt.NDArray[np.bytes_]
"""Ids of blocks in the order of a tensor."""


def tree_costs(
    tree: Tree,
    lines: Sequence[LinePlan],
    tensors: Tensors,
    find: EncodingSource,
    *,
    every_step: bool,
) -> TensorCosts:
    """The costs of every depth of a line with all under it; a row for each leaf of the tree.

    every_step: of any of its lines. Raises MissingObject for a block in no pack.
    """
    grid = Grid.of(tensors[lines[tree.root].like])
    bases = _bases(tree, lines, tensors)
    rows: list[_Row] = []
    for number in tree.lines:
        line = lines[number]
        equal = equal_blocks(line, tensors)
        aligned = Grid.of(tensors[line.like]) == grid
        base = stored_base(line)
        under = None if base is None else tensors[base]
        over = NO_IDS if under is None or Grid.of(under) != grid else _blocks(under)
        for place, term in enumerate(line.inputs):
            if term.made is None:
                tensor = None if term.stored is None else tensors[term.stored]
                rows.append(_row(tensor, equal[place], grid, over, aligned=aligned))
    filling = _Filling(grid, rows, bases, every_step and bool(bases))
    factors = [leaf.input.factors for leaf in tree.leaves]
    under_factors = [
        line.base.factors
        for line in (lines[number] for number in tree.lines)
        if line.base is not None
    ]
    filling.add_factors(factors, under_factors, tensors, find)
    return filling.run(find) if grid.blocks else filling.costs()


class _Row(Struct, frozen=True):
    """A leaf's blocks, cut by `grid`: one for each of the output's if it is `paired`.

    equal  by the output's blocks; read: by its own, of one that is not paired
    over   the base's blocks that coarse layers lie over, one for each of the output's; or none
    """

    ids: Blocks
    grid: Grid
    paired: bool
    equal: npt.NDArray[np.bool_]
    over: Blocks
    read: npt.NDArray[np.bool_]


def _row(
    tensor: Tensor | None,
    equal: npt.NDArray[np.bool_],
    grid: Grid,
    over: Blocks,
    *,
    aligned: bool,
) -> _Row:
    """aligned: the leaf's line has the output's grid."""
    if tensor is None:
        full = bool(equal.all())
        return _Row(
            ids=NO_IDS,
            grid=grid,
            paired=True,
            equal=np.full(grid.blocks, full, np.bool_),
            over=NO_IDS,
            read=~equal,
        )
    ids, cut = _blocks(tensor), Grid.of(tensor)
    if aligned and cut == grid:
        return _Row(ids=ids, grid=cut, paired=True, equal=equal, over=over, read=~equal)
    # Where its line has the same blocks as it, some of them may be the base's all the same.
    read = ~equal if len(equal) == len(ids) else np.ones(len(ids), np.bool_)
    return _Row(
        ids=ids,
        grid=cut,
        paired=False,
        equal=np.zeros(grid.blocks, np.bool_),
        over=NO_IDS,
        read=read,
    )


def _bases(tree: Tree, lines: Sequence[LinePlan], tensors: Tensors) -> list[tuple[Blocks, Grid]]:
    """The stored bases of all lines of a tree, each once, and how they are cut."""
    bases: dict[ObjectId, None] = {}
    for number in tree.lines:
        base = lines[number].base
        if base is not None and base.stored is not None:
            bases[base.stored] = None
    return [(_blocks(tensors[identity]), Grid.of(tensors[identity])) for identity in bases]


def _blocks(tensor: Tensor) -> Blocks:
    return np.frombuffer(tensor.blocks, ID_DTYPE)


class _Filling:
    """The costs of one tensor in the making."""

    def __init__(
        self,
        grid: Grid,
        rows: list[_Row],
        bases: list[tuple[Blocks, Grid]],
        every_step: bool,
    ) -> None:
        self.grid = grid
        self.rows = rows
        self.bases = bases
        self.every_step = every_step
        self.equal = np.array([row.equal for row in rows], np.bool_).reshape(len(rows), grid.blocks)
        self.exact = np.zeros(self.equal.shape, np.int64)
        self.coarse = np.full(self.equal.shape, NOT_THERE, np.int64)
        self.base = np.zeros(grid.blocks, np.int64)
        self.factors = np.zeros(len(rows), np.int64)
        self.base_factors = 0
        self.shared: dict[int, SharedReads] = {}
        self.held: dict[int, frozenset[BlockId]] = {}

    def costs(self) -> TensorCosts:
        whole = tuple(not row.paired for row in self.rows)
        return TensorCosts(
            equal=self.equal,
            exact=self.exact,
            coarse=self.coarse,
            base=self.base,
            whole=whole,
            factors=self.factors,
            base_factors=self.base_factors,
            shared=self.shared,
        )

    def add_factors(
        self,
        factors: Sequence[LowRank | None],
        under: Sequence[LowRank | None],
        tensors: Tensors,
        find: EncodingSource,
    ) -> None:
        """Count what reading factors takes, each once: bases' first, as the engine does."""
        pairs = [*under, *factors]
        if not any(pairs):
            return
        blocks = {
            number: [
                *tensors[pair.up].block_ids(),
                *tensors[pair.down].block_ids(),
            ]
            for number, pair in enumerate(pairs)
            if pair is not None
        }
        options = find.encodings(block for of_pair in blocks.values() for block in of_pair)
        held: set[BlockId] = set()
        for number, of_pair in blocks.items():
            spent = 0
            for chain in whole_reads(of_pair, options, held):
                spent += chain.stored_bytes
            if number < len(under):
                self.base_factors += spent
            else:
                self.factors[number - len(under)] = spent

    def run(self, find: EncodingSource) -> TensorCosts:
        untouched = self.equal.all(axis=0) & (not self.every_step)
        touched = [int(step) for step in np.flatnonzero(~untouched)]
        if touched and self._is_aligned():
            touched = self._by_arrays(touched, find)
        options = find.encodings(self._wanted(touched))
        for step in touched:
            self._step(step, options)
        if not all(row.paired for row in self.rows):
            self._add_whole(options)
        return self.costs()

    def _is_aligned(self) -> bool:
        """Whether all that is read is cut as the output is."""
        return all(row.paired for row in self.rows) and all(
            grid == self.grid for _, grid in self.bases
        )

    def _by_arrays(self, touched: Sequence[int], find: EncodingSource) -> list[int]:
        """Fill in the steps in which nobody has a choice of records or shares one: the others.

        What `_by_chains` would find, at a fraction of the time: planning a large model is this.
        """
        steps = np.array(touched, np.int64)
        places = [place for place, row in enumerate(self.rows) if len(row.ids)]
        under = np.array([ids[steps] for ids, _ in self.bases], ID_DTYPE).reshape(-1, len(steps))
        over = np.array([self.rows[place].ids[steps] for place in places], ID_DTYPE)
        over = over.reshape(-1, len(steps))
        read = ~self.equal[places][:, steps]
        ids = distinct(np.concatenate([under.ravel(), over[read]]))
        ways = find.only_ways(ids)
        lower = rows_of(under.ravel(), ids).reshape(under.shape)
        upper = np.where(read, rows_of(over.ravel(), ids).reshape(over.shape), 0)
        plain = self._is_plain(ways, lower, upper, read, under)
        steps, lower, upper, read = steps[plain], lower[:, plain], upper[:, plain], read[:, plain]
        self.base[steps] = ways.stored_bytes[lower].sum(axis=0)
        exact = np.where(read, ways.stored_bytes[upper], 0)
        for at, place in enumerate(places):
            self.exact[place, steps] = exact[at]
            over = self.rows[place].over
            if len(over):
                layered = read[at] & (ways.layers[upper[at]] > 1)
                layered &= ways.bases[upper[at]] == over[steps]
                coarse = np.where(layered, ways.first_bytes[upper[at]], NOT_THERE)
                self.coarse[place, steps] = coarse
        return [step for step, done in zip(touched, plain, strict=True) if not done]

    def _is_plain(
        self,
        ways: OnlyWays,
        lower: npt.NDArray[np.int64],
        upper: npt.NDArray[np.int64],
        read: npt.NDArray[np.bool_],
        under: Blocks,
    ) -> npt.NDArray[np.bool_]:
        """Per step: the bases' blocks lean on nothing, and each expert's on them or on nothing."""
        plain = (ways.single[lower] & (ways.bases[lower] == b"")).all(axis=0)
        leans_on = ways.bases[upper]
        near = leans_on == b""
        for base in under:
            near |= leans_on == base
        plain &= (~read | (ways.single[upper] & near)).all(axis=0)
        # Nobody's block is another's, or in hand; what is not read is like no other.
        apart = np.broadcast_to(-1 - np.arange(len(upper))[:, None], upper.shape)
        numbers = np.sort(np.concatenate([lower, np.where(read, upper, apart)]), axis=0)
        alone: npt.NDArray[np.bool_] = plain & (numbers[1:] != numbers[:-1]).all(axis=0)
        return alone

    def _add_whole(self, options: Options) -> None:
        """Count the leaves that are cut otherwise, by the steps that are made together."""
        grids = [*(row.grid for row in self.rows), *(grid for _, grid in self.bases)]
        count = together(self.grid, grids)
        for first in range(0, self.grid.blocks, count):
            last = min(first + count, self.grid.blocks) - 1
            start, end = self.grid.span(first)[0], self.grid.span(last)[1]
            held = {block for step in range(first, last + 1) for block in self.held.get(step, ())}
            for place, row in enumerate(self.rows):
                if not row.paired:
                    blocks = [
                        whole(row.ids[at]) for at in row.grid.under(start, end) if row.read[at]
                    ]
                    self.exact[place, first] = _whole_bytes(blocks, options, held)

    def _under(self, step: int) -> list[BlockId]:
        """The bases' blocks under a step."""
        bases: list[BlockId] = []
        for ids, grid in self.bases:
            if grid == self.grid:
                bases.append(whole(ids[step]))
            else:
                bases += [whole(ids[index]) for index in grid.under(*self.grid.span(step))]
        return bases

    def _wanted(self, touched: Sequence[int]) -> set[BlockId]:
        wanted = {block for step in touched for block in self._under(step)}
        for place, row in enumerate(self.rows):
            if row.paired and len(row.ids):
                wanted.update(
                    whole(row.ids[step]) for step in touched if not self.equal[place, step]
                )
            else:
                wanted.update(whole(row.ids[at]) for at in np.flatnonzero(row.read[: len(row.ids)]))
        return wanted

    def _step(self, step: int, options: Options) -> None:
        under = base_reads(self._under(step), options)
        in_hand = held_by(under)
        self.held[step] = in_hand
        self.base[step] = sum(chain.stored_bytes for chain in under)
        rows = [
            place
            for place, row in enumerate(self.rows)
            if row.paired and len(row.ids) and not self.equal[place, step]
        ]
        self._by_chains(step, rows, options, under)

    def _by_chains(
        self, step: int, rows: Sequence[int], options: Options, under: Sequence[Chain]
    ) -> None:
        in_hand = held_by(under)
        known = {at.place for chain in under for at in chain.records}
        exact: dict[int, Chain] = {}
        coarse: dict[int, Chain] = {}
        for row in rows:
            leaf = self.rows[row]
            chain = exact[row] = exact_read(whole(leaf.ids[step]), options, in_hand)
            self.exact[row, step] = chain.stored_bytes
            self.coarse[row, step] = NOT_THERE
            if len(leaf.over):
                layer = coarse_read(chain.block, whole(leaf.over[step]), options)
                if layer is not None:
                    coarse[row] = layer
                    self.coarse[row, step] = sum(
                        at.stored_bytes for at in layer.records if at.place not in known
                    )
        if _overlap(_read_blocks(exact[row], coarse.get(row)) for row in rows):
            everyone = range(len(self.rows))
            self.shared[step] = SharedReads(
                tuple(_places(exact.get(row)) for row in everyone),
                tuple(_places(coarse.get(row), known) for row in everyone),
            )


def _whole_bytes(blocks: Sequence[BlockId], options: Options, held: Iterable[BlockId]) -> int:
    """All blocks of an expert that is cut differently, each record once."""
    in_hand = frozenset(held)
    places: dict[Place, int] = {}
    for block in blocks:
        places.update(_places(exact_read(block, options, in_hand)))
    return sum(places.values())


def _places(chain: Chain | None, known: Collection[Place] = ()) -> dict[Place, int]:
    if chain is None:
        return {}
    return {at.place: at.stored_bytes for at in chain.records if at.place not in known}


def _read_blocks(*chains: Chain | None) -> set[BlockId]:
    """The blocks that any of these reads a record of."""
    return {block for chain in chains if chain is not None for block, _ in chain.links}


def _overlap(reads: Iterable[set[BlockId]]) -> bool:
    """Whether two leaves read records of one block."""
    seen: set[BlockId] = set()
    for blocks in reads:
        if not seen.isdisjoint(blocks):
            return True
        seen |= blocks
    return False
