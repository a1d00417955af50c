"""A file's tensor with all lines under it, as far as it is known before depths are chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import LinePlan
from mergepipe.objects.store import Tensors
from mergepipe.planner.drafts import Draft, unplanned
from mergepipe.planner.gains import Floats
from mergepipe.planner.outliers import tempers
from mergepipe.plans.cost_counting import tree_costs
from mergepipe.plans.cost_table import TensorCost, tensor_cost
from mergepipe.plans.costs import NOT_THERE, Bytes, Depths, TensorCosts
from mergepipe.plans.equality import every_step
from mergepipe.plans.foresight import looked_up_together
from mergepipe.plans.leaves import influence, leaf_numbers, raw_bytes, root_depths
from mergepipe.plans.passes import Reading, leaf_passes
from mergepipe.plans.reads import EncodingSource
from mergepipe.plans.trees import Tree
from mergepipe.plans.units import unit_blocks


class Offer(Struct, frozen=True):
    """Costs and gains of one tensor's blocks, a row per leaf."""

    coarse_costs: Bytes
    coarse_gains: Floats
    exact_costs: Bytes
    exact_gains: Floats


class Root(Struct, frozen=True):
    """A tensor that a file holds; rows are the leaves of its tree.

    drafts    of the tree's lines, by number
    readings  of the merge first, then of further trees for their statistics
    forced    blocks that every plan reads
    aligned   per row, whether its line has the blocks of the root
    """

    tree: Tree
    drafts: Mapping[int, Draft]
    readings: tuple[Reading, ...]
    forced: npt.NDArray[np.bool_]
    aligned: tuple[bool, ...]
    raw_bytes: tuple[int, ...]
    every_step: bool

    @property
    def costs(self) -> TensorCosts:
        """Of one pass, the merge's."""
        return self.readings[0].costs

    @property
    def full_bytes(self) -> int:
        """Bytes of the exact merge that count as the experts', over all passes."""
        full = sum(int(reading.full_bytes.sum()) for reading in self.readings)
        return full - sum(reading.saved_bytes(self.costs.full) for reading in self.readings)

    @property
    def forced_bytes(self) -> int:
        """Of them, those that every plan reads."""
        must = np.where(self.forced, np.uint8(Depth.EXACT), np.uint8(Depth.OMITTED))
        return sum(int(reading.planned_bytes(must).sum()) for reading in self.readings)

    def offer(self) -> Offer:
        """What can be bought."""
        shape = self.costs.equal.shape
        coarse, exact = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for reading in self.readings:
            reading.add_offer(coarse, exact)
        coarse_gains, exact_gains = np.zeros(shape), np.zeros(shape)
        scalars = {number: draft.supposed_scalars() for number, draft in self.drafts.items()}
        factors = influence(self.tree, {n: d.unplanned for n, d in self.drafts.items()}, scalars)
        for number, draft in self.drafts.items():
            gains = draft.gains()
            for row in self.tree.rows(number):
                place = self.tree.leaves[row].place
                gain, view = gains[place], draft.views[place]
                if gain is None or view is None or not self.aligned[row]:
                    continue
                coarse_gains[row] = gain.coarse * factors[number] ** 2
                exact_gains[row] = gain.exact * factors[number] ** 2
                if not view.has_coarse:
                    coarse[row] = NOT_THERE
        tempers = self._tempers()
        coarse_gains *= tempers
        exact_gains *= tempers
        exact[self.forced | self.costs.equal] = NOT_THERE
        return Offer(coarse, coarse_gains, exact, exact_gains)

    def _tempers(self) -> Floats:
        """Per row, what an outlier's gains are multiplied by."""
        factors = tempers(self.energies())
        rows = [factors.get(model, 1.0) for model in self.models]
        return np.array(rows, np.float64).reshape(-1, 1)

    def energies(self) -> dict[int, float]:
        """By model, the energy of its changes here, without weights, where a profile tells."""
        energies: dict[int, float] = {}
        for leaf in self.tree.leaves:
            view = self.drafts[leaf.line].views[leaf.place]
            if view is not None:
                energy = float(view.known_energies.sum())
                energies[leaf.input.model] = energies.get(leaf.input.model, 0.0) + energy
        return energies

    @property
    def models(self) -> tuple[int, ...]:
        """Per row, the place of its model."""
        return tuple(leaf.input.model for leaf in self.tree.leaves)

    def forced_by_model(self) -> dict[int, int]:
        """Bytes of each model that every plan reads, what models share counted for each."""
        bytes_by_model = dict.fromkeys(self.models, 0)
        for reading in self.readings:
            must = np.where(self.forced, np.uint8(Depth.EXACT), np.uint8(Depth.OMITTED))
            for row, size in zip(reading.rows, reading.planned_bytes(must), strict=True):
                bytes_by_model[self.models[row]] += int(size)
        return bytes_by_model

    def full_by_model(self) -> dict[int, int]:
        """Bytes of each model that the exact merge reads, counted likewise."""
        bytes_by_model = dict.fromkeys(self.models, 0)
        for reading in self.readings:
            for row, size in zip(reading.rows, reading.full_bytes, strict=True):
                bytes_by_model[self.models[row]] += int(size)
        return bytes_by_model

    def expert_bytes(self, depths: Depths) -> int:
        """Bytes that count as the experts', at the depths of its rows."""
        return sum(
            int(reading.planned_bytes(depths).sum()) - reading.saved_bytes(depths)
            for reading in self.readings
        )

    def base_bytes(self, depths: Depths) -> int:
        """Bytes of the bases, at most, at the depths of its rows."""
        return sum(
            reading.base_bytes(depths, every_step=self.every_step) for reading in self.readings
        )

    def cost(self, lines: Sequence[LinePlan]) -> TensorCost:
        """What its planned lines read and keep."""
        views = {
            (number, place): view
            for number, draft in self.drafts.items()
            for place, view in enumerate(draft.views)
        }
        leaves = leaf_numbers(self.tree, lines, views, self.aligned, self.raw_bytes)
        name, depths = lines[self.tree.root].name, root_depths(self.tree, lines, self.costs)
        return tensor_cost(name, depths, leaves, self.readings, every_step=self.every_step)


def read_roots(
    drafts: Sequence[Draft | LinePlan], tensors: Tensors, find: EncodingSource
) -> dict[int, Root]:
    """Every file's tensor that is computed, by the number of its line."""
    lines = [unplanned(draft) for draft in drafts]
    trees = {
        number: Tree.of(number, lines)
        for number, draft in enumerate(drafts)
        if isinstance(draft, Draft) and lines[number].file is not None
    }
    users: dict[int, int] = {}
    for tree in trees.values():
        for number in tree.lines:
            users[number] = users.get(number, 0) + 1
    measured: set[int] = set()
    roots = {}
    sources = looked_up_together(list(trees.values()), lines, tensors, find)
    for (number, tree), known in zip(trees.items(), sources, strict=True):
        drafts_under: dict[int, Draft] = {}
        for under in tree.lines:
            draft = drafts[under]
            assert isinstance(draft, Draft)
            drafts_under[under] = draft
        roots[number] = _root(tree, drafts_under, lines, users, measured, tensors, known)
        measured.update(tree.lines)
    return roots


def _root(
    tree: Tree,
    drafts: Mapping[int, Draft],
    lines: Sequence[LinePlan],
    users: Mapping[int, int],
    measured: set[int],
    tensors: Tensors,
    find: EncodingSource,
) -> Root:
    def reads_base(of: Tree) -> bool:
        return any(
            every_step(lines[number], tensors, noop=drafts[number].method.omitted_is_noop)
            for number in of.lines
        )

    def reading(of: Tree, merging: int) -> Reading:
        draft = drafts[of.root]
        costs = tree_costs(of, lines, tensors, find, every_step=reads_base(of))
        return Reading(
            costs,
            np.array([places[leaf.line, leaf.place] for leaf in of.leaves], np.int64),
            leaf_passes(of, lines, draft.passes) + merging,
            leaf_passes(of, lines, draft.trim_passes),
        )

    places = {(leaf.line, leaf.place): row for row, leaf in enumerate(tree.leaves)}
    readings = [reading(tree, 1)]
    readings += [
        reading(Tree.of(number, lines), 0)
        for number in tree.lines[1:]
        if number not in measured and drafts[number].measured
    ]
    costs = readings[0].costs
    like = tensors[lines[tree.root].like]
    whole = any(unit_blocks(draft.scope, like) > 1 for draft in drafts.values())
    forced = ~costs.equal
    aligned = []
    for row, leaf in enumerate(tree.leaves):
        draft = drafts[leaf.line]
        fits = draft.elements == drafts[tree.root].elements
        aligned.append(fits)
        if fits and not whole and users[leaf.line] == 1:
            forced[row] &= draft.must_read[leaf.place]
    return Root(
        tree=tree,
        drafts=drafts,
        readings=tuple(readings),
        forced=forced,
        aligned=tuple(aligned),
        raw_bytes=tuple(raw_bytes(leaf.input, tensors) for leaf in tree.leaves),
        every_step=reads_base(tree),
    )
