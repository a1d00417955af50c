"""Selection against every possible choice."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.objects.depths import Depth
from mergepipe.planner.selection import Selection, select


def run(items: list[tuple[int, float, int, float]], budget: int) -> Selection:
    coarse_costs, coarse_gains, exact_costs, exact_gains = zip(*items, strict=True)
    return select(
        np.array(coarse_costs, np.int64),
        np.array(coarse_gains, np.float64),
        np.array(exact_costs, np.int64),
        np.array(exact_gains, np.float64),
        budget,
    )


def points(item: tuple[int, float, int, float]) -> dict[Depth, tuple[int, float]]:
    coarse_cost, coarse_gain, exact_cost, exact_gain = item
    found = {Depth.OMITTED: (0, 0.0)}
    if exact_cost >= 0:
        found[Depth.EXACT] = (exact_cost, exact_gain)
        if coarse_cost >= 0:
            found[Depth.COARSE] = (coarse_cost, coarse_gain)
    return found


def best(items: list[tuple[int, float, int, float]], budget: int) -> float:
    return max(
        sum(gain for _, gain in choice)
        for choice in product(*(points(item).values() for item in items))
        if sum(cost for cost, _ in choice) <= budget
    )


@st.composite
def an_item(draw: st.DrawFn) -> tuple[int, float, int, float]:
    exact_cost = draw(st.integers(-1, 40))
    coarse_cost = draw(st.integers(-1, 12))
    exact_gain = draw(st.integers(0, 50)) / 2
    coarse_gain = exact_gain * draw(st.integers(0, 10)) / 10
    return coarse_cost, coarse_gain, exact_cost, exact_gain


@settings(max_examples=300, deadline=None)
@given(st.lists(an_item(), min_size=1, max_size=6), st.integers(0, 120))
def test_spends_at_most_the_budget_and_is_one_edge_short_of_the_best(
    items: list[tuple[int, float, int, float]], budget: int
) -> None:
    chosen = run(items, budget)
    bought = [points(item)[Depth(depth)] for item, depth in zip(items, chosen.depths, strict=True)]
    assert chosen.spent_bytes == sum(cost for cost, _ in bought) <= budget
    assert chosen.gain == pytest.approx(sum(gain for _, gain in bought))
    largest = max(gain for item in items for _, gain in points(item).values())
    assert best(items, budget) - largest - 1e-9 <= chosen.gain <= best(items, budget) + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.lists(an_item(), min_size=1, max_size=8))
def test_gain_never_falls_as_the_budget_grows_and_all_is_bought_in_the_end(
    items: list[tuple[int, float, int, float]],
) -> None:
    gains = [run(items, budget).gain for budget in range(0, 200, 7)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(gains))
    everything = sum(gain for cost, gain in (item[2:] for item in items) if cost >= 0)
    assert run(items, 10_000).gain == pytest.approx(everything)


def test_is_the_best_there_is_at_every_corner_of_the_hull() -> None:
    rng = np.random.default_rng(0)
    items = [
        (int(cost), float(gain), int(cost * 4), float(gain * 1.3))
        for cost, gain in zip(rng.integers(1, 9, 5), rng.uniform(1, 9, 5), strict=True)
    ]
    corners = {run(items, budget).spent_bytes for budget in range(200)}
    reached = [corner for corner in corners if run(items, corner).spent_bytes == corner]
    prefixes = 0
    for corner in reached:
        chosen = run(items, corner)
        # At a corner nothing was passed over: then no other choice is better.
        if run(items, corner + 1).gain == chosen.gain:
            prefixes += chosen.gain == pytest.approx(best(items, corner))
    assert prefixes >= 5


def test_coarse_comes_before_exact_where_it_is_the_better_bargain() -> None:
    items = [(10, 8.0, 40, 10.0)] * 3
    assert list(run(items, 30).depths) == [Depth.COARSE] * 3
    assert list(run(items, 60).depths) == [Depth.EXACT, Depth.COARSE, Depth.COARSE]


def test_a_coarse_layer_below_the_hull_is_never_bought() -> None:
    items = [(10, 1.0, 20, 10.0)]
    assert list(run(items, 19).depths) == [Depth.OMITTED]
    assert list(run(items, 20).depths) == [Depth.EXACT]


def test_ties_go_to_the_earlier_item() -> None:
    items = [(-1, 0.0, 10, 5.0)] * 4
    assert list(run(items, 25).depths) == [Depth.EXACT, Depth.EXACT, Depth.OMITTED, Depth.OMITTED]


def test_what_does_not_fit_is_passed_over_for_what_does() -> None:
    items = [(-1, 0.0, 10, 10.0), (-1, 0.0, 100, 90.0), (-1, 0.0, 5, 1.0)]
    chosen = run(items, 20)
    assert list(chosen.depths) == [Depth.EXACT, Depth.OMITTED, Depth.EXACT]
    assert chosen.least_bytes == 5


def test_a_deeper_layer_is_not_bought_without_the_one_before_it() -> None:
    # The coarse layer (30) does not fit, the rest of the block (10) would.
    items = [(-1, 0.0, 15, 100.0), (30, 29.0, 40, 30.0)]
    assert list(run(items, 35).depths) == [Depth.EXACT, Depth.OMITTED]


def test_what_costs_nothing_is_always_bought() -> None:
    assert list(run([(-1, 0.0, 0, 1.0)], 0).depths) == [Depth.EXACT]
