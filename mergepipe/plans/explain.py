"""Why a merge is what it is: for each tensor, which model gave what, and what was left out.

Works from a stored plan: what it read is looked up in packs and profiles again. Passes over the
models for statistics are not part of it: their results stand in the plan.
"""

from difflib import get_close_matches
from typing import Self

import numpy as np
from msgspec import Struct, field

from mergepipe.catalog.view import TensorView
from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.methods import registry
from mergepipe.methods.terms import ExpertScalars
from mergepipe.names import quoted
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import LinePlan, Plan
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.plans.cost_counting import tree_costs
from mergepipe.plans.cost_table import CostTable, ExpertCost, LeafNumbers, TensorCost, tensor_cost
from mergepipe.plans.costs import Depths, TensorCosts
from mergepipe.plans.equality import every_step
from mergepipe.plans.leaves import copied_cost, leaf_numbers, raw_bytes, root_depths
from mergepipe.plans.numbers import scalars_of
from mergepipe.plans.passes import Reading
from mergepipe.plans.profile_views import Profiles, ProfileTable
from mergepipe.plans.reads import EncodingSource
from mergepipe.plans.trees import Tree
from mergepipe.reprs import brief


@brief
class ExpertPart(Struct, frozen=True):
    """What one model gave to one tensor, at the stage `method` (a line's, its file's or under it).

    influence  its share of the weighted delta energy that the plan keeps of all of them; None if
               one of them has no profile
    depths     of its blocks
    """

    cost: ExpertCost
    scalars: ExpertScalars | None
    influence: float | None
    method: str
    depths: bytes


@brief
class TensorExplanation(Struct, frozen=True):
    """How one tensor was made."""

    name: str
    method: str
    dtype: str
    kept: bool
    experts: tuple[ExpertPart, ...]
    cost: TensorCost


@brief
class Explanation(Struct, frozen=True):
    """How all of a plan's tensors are made; `experts`: the models merged, by place and snapshot."""

    method: str
    seed: int
    base: ObjectId | None
    experts: tuple[ObjectId, ...]
    tensors: tuple[TensorExplanation, ...]
    costs: CostTable


def costs_of(pricing: "Pricing", tensor: str | None = None) -> CostTable:
    """What executing a stored plan reads and keeps; or only what the tensor of this name does."""
    chosen = _chosen(pricing.plan, tensor)
    return CostTable(tuple(pricing.cost(number) for number in chosen), None)


def explain(pricing: "Pricing", tensor: str | None = None) -> Explanation:
    """How the tensors of a plan are made, or the one called `tensor`.

    Raises MergepipeError if there is none of that name.
    """
    plan = pricing.plan
    chosen = _chosen(plan, tensor)
    if not chosen:
        names = [line.name for line in plan.made]
        near = get_close_matches(tensor or "", names, 1)
        hint = f"did you mean {quoted(near[0])}?" if near else "mp show REV --tensors lists them"
        raise MergepipeError(f"no tensor is called {quoted(tensor or '')}", hint)
    costs = costs_of(pricing, tensor)
    return Explanation(
        method=plan.method,
        seed=plan.seed,
        base=plan.base,
        experts=tuple(plan.models[place] for place in plan.experts),
        tensors=tuple(
            _explained(plan, number, cost)
            for number, cost in zip(chosen, costs.tensors, strict=True)
        ),
        costs=costs,
    )


def _chosen(plan: Plan, tensor: str | None) -> list[int]:
    """Numbers of the lines that files hold; or of the one called `tensor`."""
    return [
        number
        for number, line in enumerate(plan.lines)
        if line.file is not None and tensor in (None, line.name)
    ]


def _explained(plan: Plan, number: int, cost: TensorCost) -> TensorExplanation:
    energies = [part.energy_kept for part in cost.experts]
    known = [energy for energy in energies if energy is not None]
    total = sum(known)
    line = plan.lines[number]
    parts = []
    leaves = None if cost.kept else Tree.of(number, plan.lines).leaves
    for row, expert in enumerate(cost.experts):
        share = None
        if expert.energy_kept is not None and len(known) == len(energies) and total > 0:
            share = expert.energy_kept / total
        if leaves is None:
            parts.append(ExpertPart(expert, None, share, line.method, b""))
            continue
        leaf = leaves[row]
        merged_line = plan.lines[leaf.line]
        scalars = scalars_of(merged_line).experts[leaf.place]
        parts.append(
            ExpertPart(expert, scalars, share, merged_line.method, merged_line.depths[leaf.place])
        )
    return TensorExplanation(
        name=line.name,
        method=line.method,
        dtype=line.dtype,
        kept=cost.kept,
        experts=tuple(parts),
        cost=cost,
    )


class Parts(Struct, frozen=True):
    """A root's leaves, a row each: what reading them costs, at which depths, and their numbers."""

    costs: TensorCosts
    depths: Depths
    leaves: list[LeafNumbers]
    every_step: bool


class Pricing(Struct, frozen=True):
    """Looks up what the lines of a stored plan read, each once."""

    plan: Plan
    tensors: Tensors
    find: EncodingSource
    profiles: ProfileTable
    _parts: dict[int, Parts] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plan: Plan, objects: ObjectSource, find: EncodingSource, profiles: Profiles
    ) -> Self:
        """Of a stored plan. profiles: by (model, base), places among the plan's models."""
        return cls(plan, Tensors(objects), find, ProfileTable.of(profiles))

    def cost(self, number: int) -> TensorCost:
        """Of one line and all under it."""
        line = self.plan.lines[number]
        if line.copied is not None:
            return copied_cost(line, self.tensors)
        parts = self.parts(number)
        rows = len(parts.leaves)
        ones, zeros = np.ones(rows, np.int64), np.zeros(rows, np.int64)
        reading = Reading(parts.costs, np.arange(rows), ones, zeros)
        return tensor_cost(
            line.name, parts.depths, parts.leaves, [reading], every_step=parts.every_step
        )

    def parts(self, number: int) -> Parts:
        """The leaves of a line that is computed."""
        known = self._parts.get(number)
        if known is None:
            known = self._parts[number] = self._looked_up(number)
        return known

    def _looked_up(self, number: int) -> Parts:
        lines = self.plan.lines
        tree = Tree.of(number, lines)
        reads_base = any(self._reads_base(lines[one]) for one in tree.lines)
        costs = tree_costs(tree, lines, self.tensors, self.find, every_step=reads_base)
        views: dict[tuple[int, int], TensorView | None] = {}
        for line in tree.lines:
            blocks = Grid.of(self.tensors[lines[line].like]).blocks
            for place, view in enumerate(self.profiles.views(lines[line], blocks)):
                views[line, place] = view
        grid = Grid.of(self.tensors[lines[number].like])
        leaves = leaf_numbers(
            tree,
            lines,
            views,
            [Grid.of(self.tensors[lines[leaf.line].like]) == grid for leaf in tree.leaves],
            [raw_bytes(leaf.input, self.tensors) for leaf in tree.leaves],
        )
        return Parts(costs, root_depths(tree, lines, costs), leaves, reads_base)

    def _reads_base(self, line: LinePlan) -> bool:
        return every_step(line, self.tensors, noop=registry.find(line.method).omitted_is_noop)
