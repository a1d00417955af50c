"""First looks are spread evenly where the budget does not pay for all of them."""

import numpy as np
import pytest

from mergepipe.objects.depths import Depth
from mergepipe.planner.coverage import spread
from mergepipe.planner.selection import Selection, select

TENSORS, ITEMS = 20, 200


def chosen(coarse_gains: np.ndarray, budget: int, sizes: list[int] | None = None) -> Selection:
    """What is bought of items that cost 10 coarsely and 50 exactly."""
    coarse_costs = np.full(len(coarse_gains), 10, np.int64)
    exact_costs = np.full(len(coarse_gains), 50, np.int64)
    gains = spread(
        coarse_costs,
        coarse_gains,
        exact_costs,
        1.1 * coarse_gains,
        sizes or [ITEMS] * TENSORS,
        budget,
    )
    return select(coarse_costs, gains[0], exact_costs, gains[1], budget)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_every_tensor_gets_its_share_whatever_its_energy(share: float) -> None:
    energies = np.repeat(10.0 ** np.arange(TENSORS), ITEMS)
    budget = int(share * 10 * ITEMS * TENSORS)
    found = chosen(energies, budget)
    assert budget - 10 < found.spent_bytes <= budget
    assert not (found.depths == Depth.EXACT).any()
    looked = (found.depths == Depth.COARSE).reshape(TENSORS, ITEMS).mean(axis=1)
    assert np.abs(looked - share).max() < 0.02


def test_within_a_tensor_the_weaker_expert_is_read_less() -> None:
    energies = np.tile(np.repeat([1.0, 0.01], ITEMS // 2), TENSORS)
    found = chosen(energies, 10 * ITEMS * TENSORS // 4)
    looked = (found.depths == Depth.COARSE).reshape(TENSORS, 2, ITEMS // 2).mean(axis=(0, 2))
    assert looked[0] > 4 * looked[1] > 0


def test_a_budget_for_every_first_look_is_spent_by_gain() -> None:
    gains = 1 + np.random.default_rng(1).random(ITEMS)
    costs = np.full(ITEMS, 10, np.int64), np.full(ITEMS, 50, np.int64)
    same = spread(costs[0], gains, costs[1], 1.1 * gains, [ITEMS], 10 * ITEMS)
    assert same[0] is gains
    found = chosen(gains, 10 * ITEMS + 40, [ITEMS])
    assert int(found.depths.argmax()) == int(gains.argmax())
    assert (found.depths == Depth.EXACT).sum() == 1


def test_what_is_worth_nothing_or_not_for_sale_is_left_alone() -> None:
    gains = np.ones(ITEMS)
    gains[::2] = 0.0
    assert not chosen(gains, 10 * ITEMS // 4, [ITEMS]).depths[::2].any()
