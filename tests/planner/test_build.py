"""Plans: within their budgets, the same every time, with costs and bounds that are true."""

from itertools import pairwise

import numpy as np
import pytest

from mergepipe.dtypes import DTYPES
from mergepipe.errors import MergeInputError, OverBudget
from mergepipe.objects.depths import Depth
from mergepipe.objects.encoding import decode, encode
from mergepipe.objects.merging import Plan
from mergepipe.planner.budget import Budget
from mergepipe.planner.elections import ELECTED
from mergepipe.planner.recipe import Expert, Model, PerTensor, Recipe, Setting
from mergepipe.plans.explain import Pricing, costs_of, explain
from mergepipe.plans.numbers import scalars_of
from tests.planner.planning import planned
from tests.planner.stored_models import (
    Family,
    add_model,
    add_snapshot,
    add_tensor,
    by_pair,
    depths_of,
    family,
    float_bytes,
    named,
    plan_recipe,
)

METHODS: list[tuple[str, dict[str, Setting]]] = [
    ("task_arithmetic", {"weight": 0.3}),
    ("ties", {"density": 0.5}),
    ("ties", {"density": 0.2}),
    ("dare_ties", {"density": 0.5}),
    ("linear", {}),
]


BUDGETS = ["3%", "10%", "25%", "50%", "80%", "raw:5%", "raw:10%", "20000"]


@pytest.fixture(scope="module")
def models() -> Family:
    return family()


@pytest.mark.parametrize(("method", "parameters"), METHODS)
def test_a_full_budget_is_the_exact_plan(
    models: Family, method: str, parameters: dict[str, Setting]
) -> None:
    exact = planned(models, method, None, **parameters)
    full = exact.costs.expert_bytes_full
    assert exact.costs.expert_bytes_planned == full
    assert exact.costs.energy_kept == 1.0
    assert exact.costs.omitted_norm == 0.0
    for budget in ("100%", str(full), str(10 * full), "raw:100%"):
        assert planned(models, method, budget, **parameters).id == exact.id
    assert not exact.plan.profiles
    assert planned(models, method, str(full - 1), **parameters).id != exact.id


@pytest.mark.parametrize(("method", "parameters"), METHODS)
def test_plans_stay_within_budget_and_are_the_same_every_time(
    models: Family, method: str, parameters: dict[str, Setting]
) -> None:
    for budget in BUDGETS:
        one = planned(models, method, budget, **parameters)
        two = planned(models, method, budget, **parameters)
        assert one.plan == two.plan
        assert one.id == two.id
        assert one.costs.budget_bytes is not None
        assert 0 < one.costs.expert_bytes_planned <= one.costs.budget_bytes
        assert decode(encode(one.plan), Plan, "plan") == one.plan


@pytest.mark.parametrize(("method", "parameters"), METHODS[:1] + METHODS[3:])
def test_energy_kept_grows_with_the_budget(
    models: Family, method: str, parameters: dict[str, Setting]
) -> None:
    costs = [planned(models, method, f"{share}%", **parameters).costs for share in range(3, 100, 4)]
    kept = [cost.energy_kept for cost in costs]
    # A change's best-scaled coarse layer is what is compared, an additive method's keeps less.
    assert all(later >= earlier - 0.02 for earlier, later in pairwise(kept))
    assert kept[-1] > 0.95 > 0.9 > kept[0]


def test_depths_say_which_blocks_are_the_bases(models: Family) -> None:
    plan = planned(models, "task_arithmetic", weight=1.0).plan
    depths = {line.name: depths_of(line) for line in plan.lines}
    assert list(depths["embed"][0]) == [Depth.EQUAL] + [Depth.EXACT] * 3
    assert all((depths[name] >= Depth.EXACT).all() for name in depths)


def test_planned_bytes_are_those_of_the_records(models: Family) -> None:
    result = planned(models, "ties", "25%", density=0.5)
    total = base = 0
    for line in result.plan.lines:
        assert line.base is not None and line.base.stored is not None
        under = models.shelf.tensor(line.base.stored).block_ids()
        depths = depths_of(line)
        for row, one in enumerate(line.inputs):
            identity = one.stored
            assert identity is not None
            for step, block in enumerate(models.shelf.tensor(identity).block_ids()):
                records = models.shelf.locations[block]
                total += {
                    Depth.EXACT: sum(at.stored_bytes for at in records),
                    Depth.COARSE: records[0].stored_bytes,
                }.get(Depth(depths[row, step]), 0)
        for step, block in enumerate(under):
            if np.isin(depths[:, step], (Depth.COARSE, Depth.EXACT)).any():
                base += models.shelf.locations[block][0].stored_bytes
    assert total == result.costs.expert_bytes_planned
    assert base == result.costs.base_bytes


def test_costs_are_the_same_from_the_stored_plan(models: Family) -> None:
    for method, parameters in METHODS:
        result = planned(models, method, "20%", **parameters)
        again = costs_of(priced(models, result.plan))
        assert again.tensors == result.costs.tensors


def test_energy_and_norm_are_those_of_what_is_left_out(models: Family) -> None:
    result = planned(models, "task_arithmetic", "10%", weight=0.5)
    total = left = norm = 0.0
    for line in result.plan.lines:
        missed = np.zeros(models.base_weights[line.name].size)
        for row, own in enumerate(depths_of(line)):
            d = 0.5 * (models.weights[row][line.name] - models.base_weights[line.name])
            d = d.reshape(-1).astype(np.float64)
            total += float((d * d).sum())
            profile = models.profiles[row]
            assert profile is not None
            per_block = 4096 // 2
            for step, depth in enumerate(own):
                piece = d[step * per_block : (step + 1) * per_block]
                if depth == Depth.OMITTED:
                    error = piece
                elif depth == Depth.COARSE:
                    large = np.abs(piece) >= sorted(np.abs(piece))[-int(0.35 * len(piece))]
                    size = np.abs(piece[large]).mean() * scalars_of(line).experts[row].coarse_scale
                    error = piece - np.where(large, np.sign(piece) * size, 0)
                else:
                    continue
                left += float((error * error).sum())
                missed[step * per_block : (step + 1) * per_block] += error
        norm += float((missed * missed).sum())
    assert result.costs.energy_kept == pytest.approx(1 - left / total, rel=1e-4)
    assert norm**0.5 <= result.costs.omitted_norm * (1 + 1e-6)


def test_ties_thresholds_come_from_counts(models: Family) -> None:
    line = planned(models, "ties", density=0.3).plan.lines[0]
    for row in range(3):
        d = np.abs(models.weights[row][line.name] - models.base_weights[line.name]).reshape(-1)
        assert scalars_of(line).experts[row].threshold == np.sort(d)[::-1][int(0.3 * len(d)) - 1]


def test_coarse_scale_follows_the_method(models: Family) -> None:
    additive = planned(models, "task_arithmetic", "10%", weight=1.0).plan
    elected = planned(models, "dare_ties", "10%", density=0.9).plan
    trimmed = planned(models, "ties", "10%", density=0.1).plan
    cases = ((additive, 1.001, 3.0), (elected, 0.5, ELECTED), (trimmed, 0.0, ELECTED))
    for plan, low, high in cases:
        scales = {
            scalars.coarse_scale
            for line in plan.lines
            for scalars, own in zip(scalars_of(line).experts, line.depths, strict=True)
            if Depth.COARSE in own
        }
        assert scales
        assert all(low <= scale <= high for scale in scales)
    assert additive.profiles


def test_a_conflict_of_signs_makes_an_expert_worth_less() -> None:
    models = family(1)
    twice = Family(
        models.shelf,
        models.base,
        [models.experts[0]] * 3,
        [models.profiles[0]] * 3,
        models.base_weights,
        [models.weights[0]] * 3,
    )
    experts = tuple(
        Expert(str(row), snapshot, {"weight": weight})
        for row, (snapshot, weight) in enumerate(zip(twice.experts, (1.0, 1.0, -1.0), strict=True))
    )
    elected = Recipe("ties", experts, Model("base", twice.base))
    plan = plan_recipe(elected, Budget.parse("raw:4%"), twice.shelf, twice.profiles).plan
    read = [
        sum(int(np.isin(depths_of(line)[row], (1, 2)).sum()) for line in plan.lines)
        for row in range(3)
    ]
    assert read[2] == 0 < read[0]


def test_a_budget_too_small_names_the_least_useful_one(models: Family) -> None:
    with pytest.raises(OverBudget, match="the least that does is") as caught:
        planned(models, "ties", "100 B", density=0.5)
    assert caught.value.exit_code == 17
    least = int(caught.value.hint.split("--budget ")[1].split("B;")[0])
    assert planned(models, "ties", f"{least} B", density=0.5).costs.expert_bytes_planned == least
    with pytest.raises(OverBudget):
        planned(models, "ties", f"{least - 1} B", density=0.5)


def test_without_profiles_everything_is_read_exactly_or_refused(models: Family) -> None:
    blind = Family(
        models.shelf, models.base, models.experts, [None] * 3, models.base_weights, models.weights
    )
    result = planned(blind, "task_arithmetic", weight=1.0)
    assert result.id == planned(models, "task_arithmetic", weight=1.0).id
    assert result.costs.energy_kept == 1.0
    with pytest.raises(OverBudget, match="have to be read whatever is chosen") as caught:
        planned(blind, "task_arithmetic", "50%", weight=1.0)
    assert str(result.costs.expert_bytes_full) in caught.value.hint
    mixed = Family(
        models.shelf, models.base, models.experts, [None, *models.profiles[1:]],
        models.base_weights, models.weights,
    )  # fmt: skip
    part = planned(mixed, "task_arithmetic", "60%", weight=1.0)
    for line in part.plan.lines:
        assert set(line.depths[0]) <= {Depth.EXACT, Depth.EQUAL}
    assert {one.model for one in part.plan.profiles} <= {1, 2}


def test_a_budget_needs_a_base(models: Family) -> None:
    experts = tuple(Expert(str(row), snapshot) for row, snapshot in enumerate(models.experts))
    free = Recipe("linear", experts)
    exact = plan_recipe(free, Budget(), models.shelf, [None] * 3)
    assert exact.plan.base is None
    assert exact.plan.layout == models.experts[0]
    with pytest.raises(MergeInputError, match="needs a base"):
        plan_recipe(free, Budget.parse("50%"), models.shelf, [None] * 3)


def test_parameters_vary_by_tensor_and_expert(models: Family) -> None:
    shared = {"weight": PerTensor((("layer.0", 0.5), ("*", 0.25)))}
    experts = tuple(
        Expert(str(row), snapshot, {"weight": PerTensor((("embed", 2.0),))} if row == 1 else {})
        for row, snapshot in enumerate(models.experts)
    )
    plan = plan_recipe(
        Recipe("task_arithmetic", experts, Model("base", models.base), shared),
        Budget(), models.shelf, models.profiles,
    ).plan  # fmt: skip
    weights = {line.name: [own.weight for own in scalars_of(line).experts] for line in plan.lines}
    assert weights["embed"] == [0.25, 2.0, 0.25]
    assert weights["layer.0.w"] == [0.5, 0.5, 0.5]
    assert weights["norm"] == [0.25, 0.25, 0.25]


def test_tensors_that_nobody_changed_are_the_bases(models: Family) -> None:
    weights = dict(models.base_weights)
    weights["norm"] = models.weights[0]["norm"]
    shelf = models.shelf
    expert = add_model(shelf, weights, models.base)
    want = Recipe("linear", (Expert("e", expert),) * 2, Model("base", models.base))
    result = plan_recipe(want, Budget(), shelf, [None, None])
    kept = {line.name: line.copied is not None for line in result.plan.lines}
    assert kept == {"embed": True, "layer.0.w": True, "layer.1.w": True, "norm": False}
    assert result.plan.lines[0].copied == named(shelf, models.base)["embed"]
    # Twice the same expert: its record is read once.
    at = shelf.locations[shelf.tensor(named(shelf, expert)["norm"]).block_ids()[0]]
    assert result.costs.expert_bytes_full == sum(one.stored_bytes for one in at)
    summed = plan_recipe(
        Recipe("linear", want.experts, want.base, {"normalize": False}),
        Budget(), shelf, [None, None],
    )  # fmt: skip
    assert all(line.depths for line in summed.plan.lines)


def test_passing_one_model_through_reads_nothing(models: Family) -> None:
    shelf = models.shelf
    one = Recipe("passthrough", (Expert("e", models.experts[0]),))
    copied = plan_recipe(one, Budget.parse("1 B"), shelf, [None])
    assert copied.costs.expert_bytes_full == 0
    assert [line.copied for line in copied.plan.lines] == list(
        named(shelf, models.experts[0]).values()
    )
    cast = plan_recipe(
        Recipe("passthrough", one.experts, None, {}, DTYPES["F16"]),
        Budget(), shelf, [None],
    )  # fmt: skip
    assert cast.costs.expert_bytes_full > 0
    assert {line.dtype for line in cast.plan.lines} == {"F16"}


@pytest.mark.parametrize("budget", ["100%", "10%"])
def test_blocks_are_priced_alike_one_by_one_and_all_at_once(models: Family, budget: str) -> None:
    shelf = models.shelf
    base = next(iter(named(shelf, models.base).values()))
    # Some have a choice of records, and one leans on a block that is not the base's.
    some = [block for one in named(shelf, models.experts[0]).values()
            for block in shelf.tensor(one).block_ids()]  # fmt: skip
    kept = {block: list(places) for block, places in shelf.locations.items()}
    for block in some[:3]:
        shelf.record(block, 4096, [50])
    shelf.locations[some[5]] = []
    shelf.record(some[5], 4096, [60], shelf.tensor(base).block_ids()[-1])
    try:
        at_once = planned(models, "ties", budget)
        shelf.tells_of_many = False
        one_by_one = planned(models, "ties", budget)
    finally:
        shelf.tells_of_many = True
        shelf.locations = kept
    assert at_once.id == one_by_one.id
    assert at_once.costs == one_by_one.costs


def test_other_grids_are_read_wholly_or_not_at_all(models: Family) -> None:
    shelf = models.shelf
    tensors = {
        name: add_tensor(shelf, float_bytes(values, "BF16"), "BF16", values.shape, limit=2048)
        for name, values in models.weights[0].items()
    }
    want = Recipe(
        "task_arithmetic",
        (Expert("e", add_snapshot(shelf, tensors)),),
        Model("base", models.base),
    )
    result = plan_recipe(want, Budget(), shelf, [None])
    blocks = [block for tensor in tensors.values() for block in shelf.tensor(tensor).block_ids()]
    records = [at for block in dict.fromkeys(blocks) for at in shelf.locations[block]]
    assert result.costs.expert_bytes_full == sum(at.stored_bytes for at in records)
    assert all(set(line.depths[0]) == {Depth.EXACT} for line in result.plan.lines)


def priced(models: Family, plan: Plan) -> Pricing:
    return Pricing.of(plan, models.shelf, models.shelf, by_pair(models.profiles))


def test_explain_says_who_gave_what(models: Family) -> None:
    result = planned(models, "ties", "25%", density=0.5)
    told = explain(priced(models, result.plan), "layer.0.w")
    (tensor,) = told.tensors
    assert tensor.name == "layer.0.w"
    influences = [part.influence for part in tensor.experts]
    assert sum(one for one in influences if one is not None) == pytest.approx(1.0)
    line = next(line for line in result.plan.lines if line.name == "layer.0.w")
    for row, part in enumerate(tensor.experts):
        assert part.scalars == scalars_of(line).experts[row]
        assert part.cost.blocks_coarse == line.depths[row].count(Depth.COARSE)
        assert part.cost.blocks_equal == line.depths[row].count(Depth.EQUAL)
