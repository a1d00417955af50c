"""Budgets by expert, with the base, and beside an outlier."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import OverBudget, UsageError
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge
from mergepipe.planner.outliers import EXCESS, LIKENESS, outliers, tempers
from mergepipe.planner.recipe import Expert, Model, Recipe
from mergepipe.planner.selection import Shares, select
from tests.planner.stored_models import (
    Family,
    add_model,
    add_snapshot,
    as_bf16,
    family,
    named,
    plan_recipe,
    profile_of,
)


@pytest.fixture(scope="module")
def models() -> Family:
    return family(count=4, limit=1024)


@pytest.fixture(scope="module")
def swapped() -> Family:
    """The same, but the last expert has rows of a layer in another order."""
    found = family(count=4, limit=1024)
    weights = {name: values.copy() for name, values in found.weights[-1].items()}
    weights["layer.0.w"] = as_bf16(np.ascontiguousarray(weights["layer.0.w"][::-1]))
    expert = add_model(found.shelf, weights, found.base)
    profile = profile_of(found.shelf, expert, found.base, weights, found.base_weights)
    return Family(
        found.shelf,
        found.base,
        [*found.experts[:-1], expert],
        [*found.profiles[:-1], profile],
        found.base_weights,
        [*found.weights[:-1], weights],
    )


def planned(models: Family, budget: Budget, method: str = "task_arithmetic") -> PlannedMerge:
    experts = tuple(Expert(f"e{place}", one) for place, one in enumerate(models.experts))
    recipe = Recipe(method, experts, Model("base", models.base), {"weight": 0.25})
    return plan_recipe(recipe, budget, models.shelf, models.profiles)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "linear"])
@pytest.mark.parametrize("budget", ["5%", "20%", "60%", "100%"])
@pytest.mark.parametrize("share", ["25%", "30%", 60])
def test_no_expert_gets_more_than_its_share(
    models: Family, method: str, budget: str, share: str | float
) -> None:
    asked = Budget.asked(budget, None, share)
    found = planned(models, asked, method)
    limit = found.costs.budget_bytes
    assert limit is not None and asked.max_share is not None
    assert 0 < found.costs.expert_bytes_planned <= limit
    assert max(one.bytes_planned for one in found.experts) <= int(asked.max_share * limit)
    assert planned(models, asked, method).id == found.id


def test_a_share_that_everything_fits_is_the_exact_plan(models: Family) -> None:
    exact = planned(models, Budget())
    assert planned(models, Budget.asked("100%", None, "100%")).id == exact.id
    cut = planned(models, Budget.asked("100%", None, "20%"))
    assert cut.id != exact.id
    assert cut.costs.expert_bytes_planned < exact.costs.expert_bytes_planned


def test_a_share_that_is_none(models: Family) -> None:
    for share in ("0%", "101%", "a lot", -3):
        with pytest.raises(UsageError, match="not a share"):
            Budget.asked("10%", None, share)
    with pytest.raises(UsageError, match="in percent") as little:
        Budget.asked("10%", None, 0.4)
    assert "40%" in little.value.hint
    with pytest.raises(UsageError, match="there is none"):
        Budget.asked(None, None, "40%")
    with pytest.raises(UsageError, match="both --budget and --budget-total"):
        Budget.asked("10%", "20%")
    with pytest.raises(OverBudget, match="a share of"):
        planned(models, Budget.asked("2%", None, "0.01%"))


def test_what_was_asked_comes_back_as_text() -> None:
    for text in ("25%", "raw:7.5%", "12345 B"):
        assert Budget.parse(text).text == text
        assert Budget.parse(Budget.parse(text).text) == Budget.parse(text)
    assert Budget().text is None


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "linear"])
@pytest.mark.parametrize("share", [50, 70, 95])
def test_a_total_holds_the_base_too(models: Family, method: str, share: int) -> None:
    exact = planned(models, Budget(), method).costs
    everything = exact.expert_bytes_planned + exact.base_bytes
    found = planned(models, Budget.asked(None, f"{share}%"), method).costs
    spent = found.expert_bytes_planned + found.base_bytes
    assert found.budget_bytes == everything * share // 100
    assert found.expert_bytes_planned > 0
    assert spent <= found.budget_bytes
    # What the base leaves is used, but for a part of a percent and a block.
    assert spent >= 0.95 * found.budget_bytes - 1024
    full = planned(models, Budget.asked(None, str(everything)), method)
    assert full.id == planned(models, Budget(), method).id


def test_a_total_below_the_base_says_what_it_takes(models: Family) -> None:
    with pytest.raises(OverBudget, match=r"reads nothing|have to be read"):
        planned(models, Budget.asked(None, "200 B"))


@pytest.mark.parametrize("budget", ["10%", "raw:10%", "50%"])
def test_an_outlier_gets_an_even_share(swapped: Family, budget: str) -> None:
    found = planned(swapped, Budget.parse(budget))
    limit = found.costs.budget_bytes
    assert limit is not None
    *others, outlier = found.experts
    if found.costs.expert_bytes_planned >= 0.9 * limit:
        assert outlier.bytes_planned <= 0.3 * limit
    assert min(one.energy_kept for one in others) > 0.05


@pytest.mark.parametrize("budget_bytes", [20_000, 21_000])
def test_what_is_left_over_takes_nothing_from_others(budget_bytes: int) -> None:
    """A broken tensor may have no coarse layer: one block costs as much as all first looks."""
    shapes = {f"layer.{number}.w": (64, 128) for number in range(5)} | {"broken": (32, 128)}
    sound = family(count=2, shapes=shapes, limit=1 << 20)
    weights = dict(sound.weights[1]) | {
        "broken": as_bf16(sound.weights[1]["broken"] * np.float32(-6))
    }
    tensors = named(sound.shelf, sound.experts[1])
    stored = add_model(sound.shelf, {"broken": weights["broken"]})  # leaning on nothing
    expert = add_snapshot(sound.shelf, tensors | named(sound.shelf, stored))
    profile = profile_of(sound.shelf, expert, sound.base, weights, sound.base_weights)
    poisoned = replace(
        sound, experts=[sound.experts[0], expert], profiles=[sound.profiles[0], profile]
    )
    budget = f"{budget_bytes} B"
    other, _ = planned(poisoned, Budget.parse(budget)).experts
    assert other.blocks_omitted == 0  # the budget pays for more than a first look


def test_an_outlier_gets_what_nobody_else_has_a_use_for(swapped: Family) -> None:
    found = planned(swapped, Budget.parse("97%"))
    *others, outlier = found.experts
    assert all(one.bytes_planned == one.bytes_full for one in others)
    assert outlier.bytes_planned > 0.8 * outlier.bytes_full


def test_experts_alike_are_left_as_they_are(models: Family) -> None:
    assert tempers({0: 1.0, 1: 2.0, 2: 3.9}) == {0: 1.0, 1: 1.0, 2: 1.0}
    assert tempers({0: 5.0}) == {0: 1.0}
    assert tempers({0: 5.0, 1: 0.0}) == {0: 1.0, 1: 1.0}
    found = tempers({0: 1.0, 1: 1.0, 2: 100.0})
    assert found[2] == pytest.approx(LIKENESS**2 / 100)
    assert outliers([{0: 1.0, 1: 1.0, 2: 100.0}]) == {2}
    # A tensor alone, of little energy, does not make one.
    assert outliers([{0: 1.0, 1: 1.0, 2: 100.0}, {0: 500.0, 1: 500.0, 2: 500.0}]) == frozenset()
    assert 0 < EXCESS < 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, 12), st.integers(0, 20), st.integers(-1, 40), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 200),
    st.lists(st.integers(0, 60), min_size=3, max_size=3),
)
def test_a_selection_keeps_to_the_shares_of_groups(
    items: list[tuple[int, int, int, int]], budget: int, most: list[int]
) -> None:
    coarse = np.array([item[0] for item in items], np.int64)
    exact = np.array([item[2] for item in items], np.int64)
    gains = np.array([float(item[1]) for item in items])
    groups = np.array([item[3] for item in items], np.int64)
    shares = Shares(groups, np.array(most, np.int64))
    chosen = select(coarse, gains * 0.6, exact, gains, budget, shares)
    costs = np.where(chosen.depths == 2, exact, np.where(chosen.depths == 1, coarse, 0))
    assert costs.sum() == chosen.spent_bytes <= budget
    assert (np.bincount(groups, costs, 3) <= most).all()
    loose = Shares(groups, np.full(3, budget, np.int64))
    alone = select(coarse, gains * 0.6, exact, gains, budget)
    assert (select(coarse, gains * 0.6, exact, gains, budget, loose).depths == alone.depths).all()
