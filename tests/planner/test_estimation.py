"""Statistics that budgets take from profiles are near those that exact merges measure."""

import numpy as np
import pytest

from mergepipe.methods.protocol import Need, NeedKind
from mergepipe.planner.estimation import estimated
from tests.planner.planning import planned
from tests.planner.stored_models import family
from tests.planner.test_elections import ELEMENTS, profiled

GRAM = Need(NeedKind.DELTA_GRAM)
SPREAD = Need(NeedKind.SPREAD, density=1.0)


@pytest.mark.parametrize("shared", [0.0, 0.3, 1.0])
def test_angles_and_energies_of_changes(shared: float) -> None:
    random = np.random.default_rng(1)
    common = random.laplace(size=ELEMENTS)
    deltas = [
        (shared * common + size * random.laplace(size=ELEMENTS)).astype(np.float32)
        for size in (1.0, 1.0, 0.5)
    ]
    views = [profiled(delta)[0] for delta in deltas]
    known = [False] * 3
    exact = np.array([[np.dot(a.astype(np.float64), b) for a in deltas] for b in deltas])
    found = estimated(GRAM, views, known, ELEMENTS)
    assert found is not None
    made = np.reshape(found, (3, 3))
    np.testing.assert_allclose(np.diag(made), np.diag(exact), rtol=1e-12)
    lengths = np.sqrt(np.diag(exact))
    cosines = exact / np.outer(lengths, lengths)
    np.testing.assert_allclose(made / np.outer(lengths, lengths), cosines, atol=0.13)
    spread = estimated(SPREAD, views, known, ELEMENTS)
    assert spread is not None
    np.testing.assert_allclose(spread, [0.0, *np.diag(exact) / ELEMENTS])


def test_what_profiles_do_not_tell() -> None:
    view = profiled(np.random.default_rng(2).laplace(size=ELEMENTS).astype(np.float32))[0]
    assert estimated(GRAM, [view, None], [False, False], ELEMENTS) is None
    assert estimated(Need(NeedKind.SPREAD, density=0.5), [view], [False], ELEMENTS) is None
    same = estimated(GRAM, [view, None], [False, True], ELEMENTS)
    assert same is not None
    assert same[0] > 0
    assert same[1:] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["sce", "model_stock"])
def test_a_budget_is_spent_on_the_merge(method: str) -> None:
    cut = planned(family(3), method, "40%")  # which has nothing to measure with
    assert cut.measured_expert_bytes == 0
    assert cut.costs.energy_kept > 0.5
