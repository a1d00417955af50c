"""What a plan costs, added up by expert: the document that scripts get, and what tables show."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from mergepipe.cli.finite_text import NonFiniteInputDocument

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.api.asked import Asked
    from mergepipe.catalog.finiteness import NonFiniteInput
    from mergepipe.catalog.suspects import Suspect
    from mergepipe.ids import ObjectId
    from mergepipe.objects.merging import Plan
    from mergepipe.planner.build import PlannedMerge
    from mergepipe.plans.cost_table import CostTable
    from mergepipe.plans.left_out import LeftOut


class ExpertDocument(msgspec.Struct, frozen=True):
    """One expert of a plan. Bytes as stored, but for `bytes_raw`.

    `weight`: null where tensors differ. `density`: the share of its weights that a trim or random
    mask leaves, ties included, over all tensors; null where no profile tells.
    """

    rev: str
    snapshot: str
    weight: float | None
    density: float | None
    bytes_raw: int
    bytes_full: int
    bytes_planned: int
    blocks_exact: int
    blocks_coarse: int
    blocks_omitted: int
    blocks_equal_base: int
    energy_kept: float


class LeftOutDocument(msgspec.Struct, frozen=True):
    """What a merge leaves out of a model: `kind` is stable, and docs/merging.md lists them all.

    `names` of tensors (layers and experts collapsed), files, tokens or keys; `message`: in words.
    """

    kind: str
    model: str
    names: tuple[str, ...]
    message: str


class WarningDocument(msgspec.Struct, frozen=True):
    """What speaks against a plan: `kind` is stable, `share` is what raised it."""

    kind: str
    share: float
    expert: str | None
    message: str


class LeastServedDocument(msgspec.Struct, frozen=True):
    """The expert of which a plan keeps the least, and the share of its energy that is kept."""

    rev: str
    energy_kept: float


class PlanDocument(msgspec.Struct, frozen=True):
    """`mp plan --json`. Sizes in bytes; `budget_bytes` is null without a limit.

    `import_bytes` and `profile_bytes` were read to import experts and to make missing profiles;
    `measured_*`, part of what is planned, for statistics that no profile holds. `stored`: whether
    the plan can be named from now on. `left_out`: what the merge takes nothing of.
    `nonfinite`: tensors that go in with values that are infinite or NaN, which a merge refuses
    unless told otherwise; `unchecked`: inputs that were not counted. `warnings`: what speaks
    against the plan. `budget` (of the experts) or `budget_total` (base included) and `max_share`
    are what was asked for, as the options take it, and null where nothing was. `least_served` is
    null for a single expert, and where everything is read.
    """

    plan: str
    budget_bytes: int | None
    expert_bytes_raw: int
    expert_bytes_full: int
    expert_bytes_planned: int
    blocks_full: int
    blocks_exact: int
    blocks_coarse: int
    energy_kept: float
    omitted_norm: float
    method: str
    seed: int
    base: str | None
    base_bytes_planned: int
    blocks_omitted: int
    blocks_equal_base: int
    experts: tuple[ExpertDocument, ...]
    import_bytes: int
    profile_bytes: int
    measured_expert_bytes: int
    measured_base_bytes: int
    plan_seconds: float
    stored: bool
    nonfinite: tuple[NonFiniteInputDocument, ...]
    unchecked: tuple[str, ...]
    left_out: tuple[LeftOutDocument, ...] = ()
    warnings: tuple[WarningDocument, ...] = ()
    budget: str | None = None
    budget_total: str | None = None
    max_share: str | None = None
    least_served: LeastServedDocument | None = None


def least_served(experts: Sequence[ExpertDocument]) -> LeastServedDocument | None:
    """Of several experts that are not all read exactly, the one of which least is kept."""
    if len(experts) < 2 or not any(
        expert.blocks_coarse or expert.blocks_omitted for expert in experts
    ):
        return None
    least = min(experts, key=lambda one: one.energy_kept)
    return LeastServedDocument(least.rev, least.energy_kept)


class PricedPlan(Struct, frozen=True):
    """A plan with its costs, and how its models were named. Seconds and bytes: of planning."""

    id: "ObjectId"
    plan: "Plan"
    costs: "CostTable"
    base: str | None
    experts: tuple[str, ...]
    asked: "Asked"
    import_bytes: int = 0
    profile_bytes: int = 0
    measured_expert_bytes: int = 0
    measured_base_bytes: int = 0
    seconds: float = 0.0
    left_out: "tuple[LeftOut, ...]" = ()
    nonfinite: "tuple[NonFiniteInput, ...]" = ()
    unchecked: tuple[str, ...] = ()
    suspects: "Mapping[int, tuple[Suspect, ...]]" = field(default_factory=dict)
    names: tuple[str, ...] = ()
    planned: "PlannedMerge | None" = None

    def named_inputs(
        self, inputs: "Sequence[NonFiniteInput]"
    ) -> tuple[NonFiniteInputDocument, ...]:
        """Tensors of inputs with values that are not finite, as the models were named."""
        return tuple(
            NonFiniteInputDocument(
                rev=self.names[one.model],
                tensor=one.values.tensor,
                file=one.values.file,
                count=one.values.count,
                elements=one.values.elements,
            )
            for one in inputs
        )

    def document(self, *, stored: bool) -> PlanDocument:
        """As JSON."""
        costs = self.costs
        experts = tuple(self._expert(row, name) for row, name in enumerate(self.experts))
        return PlanDocument(
            plan=self.id.hex(),
            budget_bytes=costs.budget_bytes,
            expert_bytes_raw=costs.expert_bytes_raw,
            expert_bytes_full=costs.expert_bytes_full,
            expert_bytes_planned=costs.expert_bytes_planned,
            blocks_full=costs.blocks_full,
            blocks_exact=costs.blocks_exact,
            blocks_coarse=costs.blocks_coarse,
            energy_kept=costs.energy_kept,
            omitted_norm=costs.omitted_norm,
            method=self.plan.method,
            seed=self.plan.seed,
            base=self.base,
            base_bytes_planned=costs.base_bytes,
            blocks_omitted=costs.blocks_omitted,
            blocks_equal_base=costs.blocks_equal,
            experts=experts,
            warnings=self._warnings(experts),
            import_bytes=self.import_bytes,
            profile_bytes=self.profile_bytes,
            measured_expert_bytes=self.measured_expert_bytes,
            measured_base_bytes=self.measured_base_bytes,
            plan_seconds=round(self.seconds, 3),
            stored=stored,
            left_out=tuple(
                LeftOutDocument(one.kind, one.model, one.patterns, one.message)
                for one in self.left_out
            ),
            nonfinite=self.named_inputs(self.nonfinite),
            unchecked=self.unchecked,
            budget=self.asked.budget,
            budget_total=self.asked.budget_total,
            max_share=self.asked.max_share,
            least_served=least_served(experts),
        )

    def _warnings(self, experts: Sequence[ExpertDocument]) -> tuple[WarningDocument, ...]:
        """What speaks against the plan; of an exact one, only how its experts differ."""
        from mergepipe.planner.verdict import Served, doubts, idle, layerless, outliers, suspected

        costs = self.costs
        names = dict(zip(self.plan.experts, self.experts, strict=True))
        warnings = [*suspected(self.suspects, names), *outliers(costs.tensors, names)]
        if self.names:
            warnings += idle(self.plan, self.names)
        if costs.blocks_exact != costs.blocks_full:
            served = [
                Served(expert.rev, expert.bytes_planned, expert.energy_kept) for expert in experts
            ]
            method, measured = self.plan.method, self.measured_expert_bytes
            warnings += doubts(served, costs.energy_kept, measured, method)
            warnings += layerless(costs.tensors, names)
        return tuple(
            WarningDocument(one.kind, one.share, one.expert, one.message) for one in warnings
        )

    def _expert(self, row: int, name: str) -> ExpertDocument:
        from mergepipe.plans.cost_table import totals
        from mergepipe.plans.numbers import scalars_of

        model = self.plan.experts[row]
        own = totals(self.costs, model, name)
        weights = {
            scalars_of(line).experts[place].weight
            for line in self.plan.lines
            if line.copied is None
            for place, one in enumerate(line.inputs)
            if one.model == model
        }
        return ExpertDocument(
            rev=name,
            snapshot=self.plan.models[model].hex(),
            weight=next(iter(weights)) if len(weights) == 1 else None,
            density=own.density,
            bytes_raw=own.bytes_raw,
            bytes_full=own.bytes_full,
            bytes_planned=own.bytes_planned,
            blocks_exact=own.blocks_exact,
            blocks_coarse=own.blocks_coarse,
            blocks_omitted=own.blocks_omitted,
            blocks_equal_base=own.blocks_equal,
            energy_kept=own.energy_kept,
        )


def priced(repository: "Repository", planned: "PlannedMerge", seconds: float) -> PricedPlan:
    """A plan that was just made, with what making it read."""
    merge = planned.merge
    model = None if merge.base is None else merge.models[merge.base]
    base = None if model is None else model.label
    if base is not None and model is not None:
        # A base that nobody named is called by its id; say its branch where it has one.
        holder = repository.planning.holders([model.snapshot]).get(model.snapshot)
        if holder is not None and holder.commit.hex().startswith(base):
            base = holder.name
    labels = tuple(model.label for model in merge.models)
    return PricedPlan(
        id=planned.id,
        plan=planned.plan,
        costs=planned.costs,
        base=base,
        experts=tuple(merge.models[place].label for place in planned.plan.experts),
        import_bytes=repository.imported_bytes,
        profile_bytes=repository.profile_bytes,
        measured_expert_bytes=planned.measured_expert_bytes,
        measured_base_bytes=planned.measured_base_bytes,
        seconds=seconds,
        left_out=planned.left_out,
        nonfinite=repository.finiteness.of_plan(planned.plan),
        suspects=_suspects(repository, planned.plan),
        unchecked=_unchecked(repository, planned.plan, labels),
        names=labels,
        asked=repository.planning.asked(planned),
        planned=planned,
    )


def priced_again(repository: "Repository", identity: "ObjectId", plan: "Plan") -> PricedPlan:
    """A stored plan: its costs are looked up anew."""
    names = snapshot_names(repository, plan)
    asked = repository.planning.asked(identity)
    costs = repository.merging.explain_plan(plan).costs
    labels = tuple(names[model] for model in plan.models)
    return PricedPlan(
        id=identity,
        plan=plan,
        costs=replace(costs, budget_bytes=asked.budget_bytes),
        base=None if plan.base is None else names[plan.base],
        experts=tuple(names[plan.models[place]] for place in plan.experts),
        left_out=repository.planning.left_out(plan),
        nonfinite=repository.finiteness.of_plan(plan),
        suspects=_suspects(repository, plan),
        unchecked=_unchecked(repository, plan, labels),
        names=labels,
        asked=asked,
    )


def _unchecked(repository: "Repository", plan: "Plan", labels: Sequence[str]) -> tuple[str, ...]:
    """The models of which nobody counted the values that are not finite."""
    unknown = repository.finiteness.unknown(plan.models)
    named = zip(labels, plan.models, strict=True)
    return tuple(dict.fromkeys(label for label, model in named if model in unknown))


def _suspects(repository: "Repository", plan: "Plan") -> dict[int, "tuple[Suspect, ...]"]:
    """Tensors of a plan's experts that look wrong, as far as that is known, by model."""
    holders = repository.planning.holders([plan.models[place] for place in plan.experts])
    suspects = {}
    for place in plan.experts:
        holder = holders.get(plan.models[place])
        if holder is not None and (own := repository.suspects_of(holder.commit)):
            suspects[place] = own
    return suspects


def snapshot_names(repository: "Repository", plan: "Plan") -> dict["ObjectId", str]:
    """What a plan's inputs are called: a ref, a commit, or where no commit has it the snapshot."""
    wanted = [*plan.models, *([] if plan.base is None else [plan.base]), plan.layout]
    holders = repository.planning.holders(wanted)
    return {one: holders[one].name if one in holders else one.hex() for one in wanted}
