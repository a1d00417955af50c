"""From a recipe and a budget to a plan, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mergepipe.errors import MergeInputError, OverBudget
from mergepipe.ids import ObjectId, object_id
from mergepipe.methods import registry
from mergepipe.methods.protocol import Method, Need
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Depth, Plan, PlanExpert, TensorPlan
from mergepipe.planner.budget import Budget, too_small
from mergepipe.planner.costs import NOT_THERE, Bytes, Depths
from mergepipe.planner.coverage import spread
from mergepipe.planner.drafts import Copied, Draft, draft_tensor
from mergepipe.planner.gains import Floats
from mergepipe.planner.inputs import ObjectSource, Tensors, read_inputs
from mergepipe.planner.profiles import Cited, ProfileTable
from mergepipe.planner.reads import EncodingSource
from mergepipe.planner.recipe import Recipe
from mergepipe.planner.resolution import Measure, Measured, SettingsReader
from mergepipe.planner.selection import select
from mergepipe.planner.table import CostTable
from mergepipe.sizes import format_size

UNLIMITED = Budget()
_BOUGHT = (Depth.OMITTED, Depth.COARSE)


@dataclass(frozen=True, slots=True)
class PlannedMerge:
    """A plan with its id (of the object it is stored as), its costs, and the recipe it is of.

    measured_expert_bytes, measured_base_bytes  read while planning, for statistics; part of what
                                                the plan costs
    """

    recipe: Recipe
    plan: Plan
    id: ObjectId
    costs: CostTable
    measured_expert_bytes: int = 0
    measured_base_bytes: int = 0


def build_plan(
    recipe: Recipe,
    budget: Budget,
    objects: ObjectSource,
    find: EncodingSource,
    profiles: Sequence[Cited],
    measure: Measure | None = None,
) -> PlannedMerge:
    """The plan of a recipe under a budget; the exact one where the budget allows it.

    profiles  per expert, against the base; None where there is none (then it is read exactly)
    measure   for statistics that no profile holds; see `resolution.Measure`

    Raises MergeInputError (exit 13) for inputs that do not fit, OverBudget (17) for a budget that
    buys nothing, MissingObject.
    """
    method = registry.find(recipe.method)
    drafts, tensors = read_drafts(recipe, method, objects, find, profiles)
    planning = _Planning(recipe, method, drafts, profiles, measure)
    full = sum(draft.full_bytes for draft in planning.computed)
    raw = sum(
        own.bytes_raw
        for draft in drafts
        for own in (draft.cost(tensors).experts if isinstance(draft, Copied) else ())
    ) + sum(sum(draft.raw_bytes) for draft in planning.computed)
    limit = budget.limit_bytes(full_bytes=full, raw_bytes=raw)
    exact = limit is None or limit >= full
    if not exact:
        assert limit is not None
        planning.check_budget(limit)
    planning.measure_trims()
    depths = planning.exact_depths() if exact or limit is None else planning.choose(limit)
    lines = planning.lines(depths)
    plan = Plan(
        method.name,
        method.version,
        recipe.seed,
        recipe.layout.snapshot,
        None if recipe.base is None else recipe.base.snapshot,
        planning.cited_experts(depths),
        tuple(lines),
    )
    costs = [
        draft.cost(tensors) if isinstance(draft, Copied) else draft.cost(line)
        for draft, line in zip(drafts, lines, strict=True)
    ]
    return PlannedMerge(
        recipe,
        plan,
        object_id(encode(plan)),
        CostTable(tuple(costs), limit),
        planning.expert_bytes,
        planning.base_bytes,
    )


def read_drafts(
    recipe: Recipe,
    method: Method,
    objects: ObjectSource,
    find: EncodingSource,
    profiles: Sequence[Cited],
) -> tuple[list[Draft | Copied], Tensors]:
    """Every output tensor as far as it is known without a choice; checks all inputs."""
    tensors = Tensors(objects)
    inputs = read_inputs(recipe, method, tensors, objects)
    settings = SettingsReader(recipe, method)
    checked = [settings.read(one.name) for one in inputs]  # all of them, before any look-up
    table = ProfileTable.of(profiles)
    drafts = [
        draft_tensor(recipe, method, own, one, tensors, table, find)
        for one, own in zip(inputs, checked, strict=True)
    ]
    return drafts, tensors


class _Planning:
    """A plan in the making."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        drafts: Sequence[Draft | Copied],
        profiles: Sequence[Cited],
        measure: Measure | None,
    ) -> None:
        self._recipe = recipe
        self._method = method
        self._drafts = list(drafts)
        self._profiles = profiles
        self._measure = measure
        self.expert_bytes = 0
        self.base_bytes = 0

    @property
    def computed(self) -> list[Draft]:
        """The tensors that are not just copied."""
        return [draft for draft in self._drafts if isinstance(draft, Draft)]

    def check_budget(self, limit: int) -> None:
        """Refuse a budget that leaves nothing to choose, before anything is read."""
        if self._recipe.base is None:
            raise MergeInputError(
                f"a budget below the full plan needs a base, which {self._method.name} was not "
                "given",
                "name one with --base, or leave the budget out",
            )
        forced = sum(draft.forced_bytes() for draft in self.computed)
        if forced > limit:
            raise OverBudget(
                f"{format_size(forced)} have to be read whatever is chosen (blocks without a "
                f"profile, thresholds that no profile knows); the budget is {format_size(limit)}",
                f"give at least --budget {forced}; mp analyze makes the profiles",
            )

    def measure_trims(self) -> None:
        """Measure the thresholds that no profile knows."""
        for place, draft in enumerate(self._drafts):
            if isinstance(draft, Draft) and draft.trims:
                found = self._measured(draft, draft.costs.full, draft.trims)
                self._drafts[place] = replace(draft, values={**draft.values, **found})

    def exact_depths(self) -> list[Depths | None]:
        """Everything, exactly; None for what is copied."""
        return [one.costs.full if isinstance(one, Draft) else None for one in self._drafts]

    def choose(self, limit: int) -> list[Depths | None]:
        """The best depths within the limit. Raises OverBudget."""
        forced = sum(draft.forced_bytes() for draft in self.computed)
        offers = [_for_sale(draft) for draft in self.computed]
        coarse_costs = np.concatenate([offer.coarse_costs.ravel() for offer in offers])
        exact_costs = np.concatenate([offer.exact_costs.ravel() for offer in offers])
        coarse_gains, exact_gains = spread(
            coarse_costs,
            np.concatenate([offer.coarse_gains.ravel() for offer in offers]),
            exact_costs,
            np.concatenate([offer.exact_gains.ravel() for offer in offers]),
            [offer.exact_costs.size for offer in offers],
            limit - forced,
        )
        chosen = select(coarse_costs, coarse_gains, exact_costs, exact_gains, limit - forced)
        if not chosen.spent_bytes and chosen.least_bytes > limit - forced and not forced:
            raise too_small(limit, chosen.least_bytes)
        found: list[Depths | None] = []
        at = 0
        for draft in self._drafts:
            if not isinstance(draft, Draft):
                found.append(None)
                continue
            equal = draft.costs.equal
            own = chosen.depths[at : at + equal.size].reshape(equal.shape).copy()
            at += equal.size
            own[draft.must_read] = Depth.EXACT
            own[equal] = Depth.EQUAL
            found.append(own)
        return found

    def lines(self, depths: Sequence[Depths | None]) -> list[TensorPlan]:
        """The plan's tensors; measures what depends on depths."""
        lines = []
        for draft, own in zip(self._drafts, depths, strict=True):
            if isinstance(draft, Copied):
                lines.append(draft.plan())
                continue
            assert own is not None
            values = dict(draft.values)
            if draft.late:
                values.update(self._measured(draft, own, draft.late))
            lines.append(draft.plan(own, draft.scalars(values, own)))
        return lines

    def cited_experts(self, depths: Sequence[Depths | None]) -> tuple[PlanExpert, ...]:
        """The experts, each with the profile that its depths need."""
        experts = []
        for row, (expert, cited) in enumerate(
            zip(self._recipe.experts, self._profiles, strict=True)
        ):
            used = any(own is not None and np.isin(own[row], _BOUGHT).any() for own in depths)
            profile = cited[0] if used and cited is not None else None
            experts.append(PlanExpert(expert.snapshot, profile, expert.kind))
        return tuple(experts)

    def _measured(
        self, draft: Draft, depths: Depths, needs: Sequence[Need]
    ) -> dict[Need, Sequence[float]]:
        if self._measure is None:
            raise MergeInputError(
                f"{self._method.name} needs statistics of {quoted(draft.inputs.name)} that no "
                "profile holds",
                "plan with an engine that can measure them (Repository.plan does)",
            )
        scalars = draft.scalars(draft.supposed_values(), depths)
        found: Measured = self._measure(
            draft.plan(depths, scalars), self.cited_experts([depths]), needs, self._recipe.seed
        )
        self.expert_bytes += found.expert_bytes
        self.base_bytes += found.base_bytes
        return dict(found.values)


@dataclass(frozen=True, slots=True)
class _Offer:
    """Costs and gains of one tensor's blocks, a row per expert."""

    coarse_costs: Bytes
    coarse_gains: Floats
    exact_costs: Bytes
    exact_gains: Floats


def _for_sale(draft: Draft) -> _Offer:
    costs = draft.costs
    times = 1 + np.array(draft.passes, np.int64)[:, None]
    offer = _Offer(
        np.where(costs.coarse == NOT_THERE, NOT_THERE, costs.coarse * times),
        np.zeros(costs.equal.shape),
        costs.exact * times,
        np.zeros(costs.equal.shape),
    )
    for row, (gains, view) in enumerate(zip(draft.gains(), draft.views, strict=True)):
        if gains is not None and view is not None:
            offer.coarse_gains[row] = gains.coarse
            offer.exact_gains[row] = gains.exact
            if not view.has_coarse:
                offer.coarse_costs[row] = NOT_THERE
    offer.exact_costs[draft.must_read | costs.equal] = NOT_THERE
    return offer
