"""From a merge and a budget to a plan, and what it costs."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId, object_id, show_ids
from mergepipe.methods.protocol import Need
from mergepipe.names import quoted
from mergepipe.objects.depths import Depth
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import LinePlan, Plan, PlanProfile
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.planner.budget import Budget
from mergepipe.planner.budget_choice import Limits, choose
from mergepipe.planner.checking import check_merge
from mergepipe.planner.drafts import Draft, draft_line, unplanned
from mergepipe.planner.lines import Merge
from mergepipe.planner.prepared import prepare
from mergepipe.planner.roots import Root, read_roots
from mergepipe.plans.cost_table import CostTable, ExpertTotals, totals
from mergepipe.plans.costs import Depths
from mergepipe.plans.leaves import copied_cost
from mergepipe.plans.left_out import Kind, LeftOut
from mergepipe.plans.measured import Measure, Measured
from mergepipe.plans.profile_views import Profiles, ProfileTable
from mergepipe.plans.reads import EncodingSource
from mergepipe.plans.trees import Tree
from mergepipe.reprs import html_table
from mergepipe.sizes import format_size

UNLIMITED = Budget()
_BOUGHT = frozenset({Depth.OMITTED, Depth.COARSE})


class PlannedMerge(Struct, frozen=True):
    """A plan with its id (of the object it is stored as), its costs, and the merge it is of.

    measured_expert_bytes, measured_base_bytes  read while planning, for statistics; part of what
                                                the plan costs
    budget  as it was asked for
    """

    merge: Merge
    plan: Plan
    id: ObjectId
    costs: CostTable
    measured_expert_bytes: int = 0
    measured_base_bytes: int = 0
    budget: Budget = UNLIMITED

    def __post_init__(self) -> None:
        show_ids(self, "id")

    @property
    def experts(self) -> tuple[ExpertTotals, ...]:
        """What the plan takes from each expert, over all tensors."""
        return tuple(
            totals(self.costs, place, self.merge.models[place].label) for place in self.plan.experts
        )

    def __repr__(self) -> str:
        costs = self.costs
        experts = ", ".join(expert.name for expert in self.experts[:4])
        more = "" if len(self.plan.experts) <= 4 else f" and {len(self.plan.experts) - 4} more"
        return (
            f"<plan {self.id.hex()[:12]}: {self.plan.method} of {experts}{more}, reads "
            f"{format_size(costs.expert_bytes_planned)} of the "
            f"{format_size(costs.expert_bytes_full)} of the exact merge, keeps "
            f"{costs.energy_kept:.1%} of the energy>"
        )

    def _repr_html_(self) -> str:
        """What is read and kept of each expert, for notebooks."""
        costs = self.costs
        caption = (
            f"Plan {self.id.hex()[:12]}: {self.plan.method}, reads "
            f"{format_size(costs.expert_bytes_planned)} of the "
            f"{format_size(costs.expert_bytes_full)} of the exact merge, keeps "
            f"{costs.energy_kept:.1%} of the energy"
        )
        rows = [
            (
                expert.name,
                format_size(expert.bytes_raw),
                format_size(expert.bytes_planned),
                expert.blocks_exact,
                expert.blocks_coarse,
                expert.blocks_omitted,
                f"{expert.energy_kept:.1%}",
            )
            for expert in self.experts
        ]
        head = ("expert", "raw", "read", "exact", "coarse", "omitted", "energy kept")
        return html_table(caption, head, rows)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What the merge leaves out of its models, and what its budget does."""
        return (*self.merge.left_out, *_unread(self.merge, self.costs))


def _unread(merge: Merge, costs: CostTable) -> Iterator[LeftOut]:
    """The blocks that a budget does not buy, by model."""
    for place, model in enumerate(merge.models):
        parts = [
            expert for tensor in costs.tensors for expert in tensor.experts if expert.model == place
        ]
        omitted = sum(part.blocks_omitted for part in parts)
        coarse = sum(part.blocks_coarse for part in parts)
        if omitted or coarse:
            reason = f"{omitted} blocks are not read, and {coarse} are estimated"
            yield LeftOut(Kind.BLOCKS, model.label, reason=reason, count=omitted + coarse)


def build_plan(
    merge: Merge,
    budget: Budget,
    objects: ObjectSource,
    find: EncodingSource,
    profiles: Profiles,
    measure: Measure | None = None,
) -> PlannedMerge:
    """The plan of a merge under a budget; the exact one where the budget allows it.

    profiles  by (model, base), their places among the merge's models; without one, blocks are read
              exactly
    measure   for statistics that no profile holds; see `resolution.Measure`

    Raises MergeInputError (exit 13) for inputs that do not fit, OverBudget (17) for a budget that
    buys nothing, MissingObject.
    """
    tensors = Tensors(objects)
    drafts = read_drafts(merge, tensors, objects, profiles)
    planning = _Planning(merge, drafts, read_roots(drafts, tensors, find), profiles, measure)
    raw = sum(
        cost.bytes_raw
        for draft in drafts
        for cost in (copied_cost(draft, tensors).experts if isinstance(draft, LinePlan) else ())
    ) + sum(sum(root.raw_bytes) for root in planning.roots.values())
    limits = Limits.of(budget, planning.roots, raw, tensors)
    if limits is None or limits.allow_everything(planning.roots):
        lines = planning.lines(planning.exact_depths())
    else:
        if planning.estimate():
            planning.roots = read_roots(planning.drafts, tensors, find)
        planning.check_budget(limits)
        planning.measure_trims()
        lines = planning.lines(planning.choose(limits))
    plan = Plan(
        seed=merge.seed,
        layout=merge.layout,
        base=None if merge.base is None else merge.models[merge.base].snapshot,
        models=tuple(model.snapshot for model in merge.models),
        profiles=planning.cited(lines),
        lines=tuple(lines),
    )
    costs = [
        copied_cost(draft, tensors)
        if isinstance(draft, LinePlan)
        else planning.roots[number].cost(lines)
        for number, draft in enumerate(drafts)
        if lines[number].file is not None
    ]
    return PlannedMerge(
        merge=merge,
        plan=plan,
        id=object_id(encode(plan)),
        costs=CostTable(tuple(costs), None if limits is None else limits.total_bytes),
        measured_expert_bytes=planning.expert_bytes,
        measured_base_bytes=planning.base_bytes,
        budget=budget,
    )


def read_drafts(
    merge: Merge, tensors: Tensors, objects: ObjectSource, profiles: Profiles
) -> list[Draft | LinePlan]:
    """Every line as far as it is known without a choice; checks all of them."""
    check_merge(merge, tensors, objects)
    table = ProfileTable.of(profiles)
    return [draft_line(line, plan, tensors, table) for line, plan in prepare(merge, tensors)]


class _Planning:
    """A plan in the making."""

    def __init__(
        self,
        merge: Merge,
        drafts: Sequence[Draft | LinePlan],
        roots: dict[int, Root],
        profiles: Profiles,
        measure: Measure | None,
    ) -> None:
        self._merge = merge
        self._drafts = list(drafts)
        self.roots = roots
        self._profiles = profiles
        self._measure = measure
        self.expert_bytes = 0
        self.base_bytes = 0

    @property
    def drafts(self) -> Sequence[Draft | LinePlan]:
        """Every line, as far as it is known."""
        return self._drafts

    def estimate(self) -> bool:
        """Take from profiles what they tell of statistics; whether there was any."""
        before = list(self._drafts)
        for place, draft in enumerate(self._drafts):
            if isinstance(draft, Draft) and draft.late:
                self._drafts[place] = draft.with_estimates()
        return any(new is not old for new, old in zip(self._drafts, before, strict=True))

    def check_budget(self, limits: Limits) -> None:
        """Refuse a budget that leaves nothing to choose, before anything is read."""
        computed = [draft for draft in self._drafts if isinstance(draft, Draft)]
        if not any(draft.unplanned.base for draft in computed):
            raise MergeInputError(
                "a budget below the full plan needs a base, which "
                f"{computed[0].method.name} was not given",
                "name one with --base, or leave the budget out",
            )
        for draft in computed:
            if draft.looks_at_lines:
                raise MergeInputError(
                    f"{draft.method.name} needs thresholds of {quoted(draft.unplanned.name)}, "
                    "which take passes over what earlier stages make: such a merge has no plan "
                    "below the full one",
                    "leave the budget out, or merge stage by stage",
                )
        names = [model.label for model in self._merge.models]
        limits.check(self.roots, names)

    def measure_trims(self) -> None:
        """Measure the thresholds that no profile knows, before depths are chosen."""
        lines = [unplanned(draft) for draft in self._drafts]
        for place, draft in enumerate(self._drafts):
            if isinstance(draft, Draft) and draft.trims:
                self._drafts[place] = self._with_trims(draft, lines[:place])

    def exact_depths(self) -> list[Depths | None]:
        """Everything, exactly; None for what is copied."""
        return [draft.full if isinstance(draft, Draft) else None for draft in self._drafts]

    def choose(self, limits: Limits) -> list[Depths | None]:
        """The best depths within the limits. Raises OverBudget."""
        chosen = choose(self.roots, limits)
        depths_of = self.exact_depths()
        for number, own in chosen.items():
            root = self.roots[number]
            for row, leaf in enumerate(root.tree.leaves):
                depths = depths_of[leaf.line]
                if root.aligned[row] and depths is not None:
                    depths[leaf.place] = own[row]
        return depths_of

    def lines(self, depths: Sequence[Depths | None]) -> list[LinePlan]:
        """The plan's lines; measures what is not known yet, each line after those under it."""
        lines: list[LinePlan] = []
        for place, depth in enumerate(depths):
            draft = self._drafts[place]
            if isinstance(draft, LinePlan):
                lines.append(draft)
                continue
            assert depth is not None
            if any(need not in draft.values for need in draft.trims):
                draft = self._with_trims(draft, lines)
            values = dict(draft.values)
            if draft.late:
                values.update(self._measured(draft, depth, draft.late, lines))
            lines.append(draft.plan(depth, draft.scalars(values, depth)))
        return lines

    def cited(self, lines: Sequence[LinePlan]) -> tuple[PlanProfile, ...]:
        """The profiles that the depths of lines need."""
        pairs = {
            (term.model, line.base.model)
            for line in lines
            if line.base is not None
            for term, depth in zip(line.inputs, line.depths, strict=False)
            if _BOUGHT & set(depth)
        }
        profiles = [(pair, self._profiles.get(pair)) for pair in sorted(pairs)]
        return tuple(PlanProfile(*pair, cited[0]) for pair, cited in profiles if cited is not None)

    def _with_trims(self, draft: Draft, lines: Sequence[LinePlan]) -> Draft:
        measured = self._measured(draft, draft.full, draft.trims, lines)
        return replace(draft, values={**draft.values, **measured})

    def _measured(
        self, draft: Draft, depths: Depths, needs: Sequence[Need], lines: Sequence[LinePlan]
    ) -> dict[Need, Sequence[float]]:
        if self._measure is None:
            raise MergeInputError(
                f"{draft.method.name} needs statistics of {quoted(draft.unplanned.name)} that no "
                "profile holds",
                "plan with an engine that can measure them (Repository.plan does)",
            )
        scalars = draft.scalars(draft.supposed_values(), depths)
        asked = [*lines, draft.plan(depths, scalars)]
        under = [asked[number] for number in Tree.of(len(lines), asked).lines]
        measured: Measured = self._measure(asked, self.cited(under), needs, self._merge.seed)
        self.expert_bytes += measured.expert_bytes
        self.base_bytes += measured.base_bytes
        return dict(measured.values)
