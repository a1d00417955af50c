"""DELLA's masks: how often which rank stays, and what either rescale makes of it."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.dtypes import F32
from mergepipe.methods import Delta, Full, Scalars, Unit, find, merge
from mergepipe.methods import statistics as stats

ROWS, ROW = 20_000, 8


def thinned(sizes, density=0.5, epsilon=0.2, seed=0, row=ROW, **shared):
    """The merged delta of one model whose d are `sizes`, shape (rows, row)."""
    method = find("della_linear")
    settings = method.settings({"density": density, "epsilon": epsilon} | shared, [{}])
    base = Full(np.zeros(sizes.size, np.float32), F32)
    term = Delta(sizes.astype(np.float32).reshape(-1))
    unit = Unit(0, sizes.size, base, (term,), Scalars.plain(1), F32, seed, 7, row)
    values = {need: stats.measure(need, [unit]) for need in method.needs(settings)}
    unit = replace(unit, scalars=method.resolve(settings, values))
    return merge(method, unit).view(np.float32).reshape(-1, row)


def shuffled(seed=0):
    """Rows that hold 1 to 8 in any order and with either sign."""
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((ROWS, ROW)), axis=1) + 1.0
    return order * rng.choice([-1, 1], order.shape)


@pytest.mark.parametrize("epsilon", [0.2, 0.0, -0.2])
def test_chances_are_by_rank(epsilon):
    sizes = shuffled()
    kept = thinned(sizes, epsilon=epsilon, rescale=False)
    assert np.array_equal(kept[kept != 0], sizes[kept != 0])
    for rank in range(ROW):
        chance = 0.5 - epsilon + 2 * epsilon * rank / (ROW - 1)
        share = (kept != 0)[np.abs(sizes) == rank + 1].mean()
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / ROWS)


def test_dividing_by_the_chance_is_unbiased():
    sizes = shuffled()
    mean = np.mean([np.abs(thinned(sizes, seed=seed)) for seed in range(5)])
    assert abs(mean - 4.5) < 0.02


def test_the_norm_restores_the_norm():
    sizes = shuffled()
    merged = thinned(sizes, rescale_norm="l1")
    assert np.abs(merged).sum(dtype=float) == pytest.approx(np.abs(sizes).sum(), rel=1e-6)
    factors = merged[merged != 0] / sizes[merged != 0]
    assert np.ptp(factors) < 1e-5


def test_equal_magnitudes_have_equal_chances():
    kept = thinned(np.ones((ROWS, ROW)), rescale=False)
    assert np.abs((kept != 0).mean(0) - 0.5).max() < 4 * np.sqrt(0.25 / ROWS)


def test_an_element_alone_in_its_row_stays_with_chance_density():
    kept = thinned(np.ones((ROWS, 1)), row=1, rescale=False)
    assert abs(kept.mean() - 0.5) < 4 * np.sqrt(0.25 / ROWS)


def test_all_or_nothing():
    sizes = shuffled()
    assert np.array_equal(thinned(sizes, density=1.0), sizes)
    assert not thinned(sizes, density=0.0).any()
