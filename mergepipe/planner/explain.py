"""Why a merge is what it is: for each tensor, which expert gave what, and what was left out.

Works from a stored plan: what it read is looked up in packs and profiles again. Passes over the
experts for statistics are not part of it: their results stand in the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.methods import registry
from mergepipe.names import quoted
from mergepipe.objects.merging import Plan, PlanScalars, TensorPlan, TermKind
from mergepipe.objects.records import Safetensors, Snapshot
from mergepipe.planner.costs import tensor_costs
from mergepipe.planner.inputs import ObjectSource, Tensors
from mergepipe.planner.profiles import Cited, ProfileTable
from mergepipe.planner.reads import EncodingSource
from mergepipe.planner.steps import Grid
from mergepipe.planner.table import (
    CostTable,
    ExpertCost,
    TensorCost,
    kept_cost,
    tensor_cost,
)


@dataclass(frozen=True, slots=True)
class ExpertPart:
    """What one expert gave to one tensor.

    influence  its share of the weighted delta energy that the plan keeps of all experts; None if
               an expert has no profile
    """

    cost: ExpertCost
    scalars: PlanScalars | None
    influence: float | None


@dataclass(frozen=True, slots=True)
class TensorExplanation:
    """How one tensor was made."""

    name: str
    dtype: str
    kept: bool
    experts: tuple[ExpertPart, ...]
    cost: TensorCost


@dataclass(frozen=True, slots=True)
class Explanation:
    """How all of a plan's tensors are made; `experts` in the order of the recipe."""

    method: str
    seed: int
    base: ObjectId | None
    experts: tuple[ObjectId, ...]
    tensors: tuple[TensorExplanation, ...]
    costs: CostTable


def costs_of(
    plan: Plan, objects: ObjectSource, find: EncodingSource, profiles: Sequence[Cited]
) -> CostTable:
    """What executing a stored plan reads and keeps. profiles: per expert, against the base."""
    tensors = Tensors(objects)
    layout = _by_place(objects.snapshot(plan.layout))
    table = ProfileTable.of(profiles)
    method = registry.find(plan.method)
    lines = [
        _cost(plan, line, layout, tensors, find, table, method.omitted_is_noop)
        for line in plan.tensors
    ]
    return CostTable(tuple(lines), None)


def explain(
    plan: Plan,
    objects: ObjectSource,
    find: EncodingSource,
    profiles: Sequence[Cited],
    tensor: str | None = None,
) -> Explanation:
    """How the tensors of a plan are made, or the one called `tensor`.

    Raises MergepipeError if there is none of that name.
    """
    if tensor is not None:
        chosen = tuple(line for line in plan.tensors if line.name == tensor)
        if not chosen:
            near = get_close_matches(tensor, [line.name for line in plan.tensors], 1)
            hint = (
                f"did you mean {quoted(near[0])}?" if near else "mp show REV --tensors lists them"
            )
            raise MergepipeError(f"no tensor is called {quoted(tensor)}", hint)
        plan = Plan(
            plan.method, plan.version, plan.seed, plan.layout, plan.base, plan.experts, chosen
        )
    costs = costs_of(plan, objects, find, profiles)
    return Explanation(
        plan.method,
        plan.seed,
        plan.base,
        tuple(expert.snapshot for expert in plan.experts),
        tuple(
            _explained(line, cost) for line, cost in zip(plan.tensors, costs.tensors, strict=True)
        ),
        costs,
    )


def _explained(line: TensorPlan, cost: TensorCost) -> TensorExplanation:
    energies = [own.energy_kept for own in cost.experts]
    known = [energy for energy in energies if energy is not None]
    total = sum(known)
    parts = tuple(
        ExpertPart(
            own,
            line.scalars[row] if line.scalars else None,
            own.energy_kept / total
            if own.energy_kept is not None and len(known) == len(energies) and total > 0
            else None,
        )
        for row, own in enumerate(cost.experts)
    )
    return TensorExplanation(line.name, line.dtype, cost.kept, parts, cost)


def _by_place(snapshot: Snapshot) -> dict[tuple[str, str], ObjectId]:
    return {
        (file.path, entry.name): entry.tensor
        for file in snapshot.files
        if isinstance(file.content, Safetensors)
        for entry in file.content.tensors
    }


def _cost(
    plan: Plan,
    line: TensorPlan,
    layout: Mapping[tuple[str, str], ObjectId],
    tensors: Tensors,
    find: EncodingSource,
    profiles: ProfileTable,
    noop: bool,
) -> TensorCost:
    experts = [None if one is None else tensors[one] for one in line.experts]
    raw = [0 if one is None else byte_length(dtype_of(one.dtype), one.shape) for one in experts]
    if not line.depths:
        blocks = [0 if one is None else len(one.block_ids()) for one in experts]
        return kept_cost(line, raw, blocks)
    form = tensors[layout[line.file, line.name]]
    every_step = line.dtype != form.dtype or not noop
    costs = tensor_costs(
        form,
        None if line.base is None else tensors[line.base],
        experts,
        find,
        deltas=[expert.kind is not TermKind.FULL for expert in plan.experts],
        every_step=every_step,
    )
    none = [0] * len(experts)
    return tensor_cost(
        line,
        costs,
        profiles.views(line.base, line.experts, Grid.of(form).blocks),
        raw_bytes=raw,
        passes=none,
        trim_passes=none,
        every_step=every_step,
    )
