"""The corners of the formulas that mergekit 0.1.5 has, as it has them; found by running it."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.dtypes import F32
from mergepipe.errors import MergeInputError
from mergepipe.methods import SAME, Full, Scalars, Unit, find, merge
from mergepipe.methods import statistics as stats


def run(name, terms, base=None, shared=None, weights=None, row=0, slab=0):
    """The merge of float32 models given as lists, as mergekit's config would have it."""
    method = find(name)
    given = [{"weight": weight} for weight in weights] if weights else [{} for _ in terms]
    settings = method.settings((shared or {}) | method.mergekit_defaults(), given)
    method = method.variant(settings, base=base is not None)

    def full(values):
        return values if values is SAME else Full(np.array(values, np.float32), F32)

    length = len(next(one for one in terms if one is not SAME))
    unit = Unit(
        0,
        length,
        None if base is None else full(base),
        tuple(map(full, terms)),
        Scalars.plain(len(terms)),
        F32,
        row_length=row or length,
        slab_length=slab,
    )
    values = {need: stats.measure(need, [unit]) for need in method.needs(settings)}
    unit = replace(unit, scalars=method.resolve(settings, values))
    return merge(method, unit).view(np.float32).tolist()


def near(*values):
    return pytest.approx(values, rel=1e-6, abs=1e-7)


ROOT = np.sqrt(0.5)


def test_nuslerp_shares_by_weight():
    assert run("nuslerp", [[1, 0], [0, 1]], weights=[1, 1]) == near(ROOT, ROOT)
    third = [np.cos(np.pi / 6), np.sin(np.pi / 6)]
    assert run("nuslerp", [[1, 0], [0, 1]], weights=[2, 1]) == near(*third)
    # Weights that sum to nothing go half way; on a line the weights are those of the line.
    assert run("nuslerp", [[1, 0], [0, 1]], weights=[1, -1]) == near(ROOT, ROOT)
    assert run("nuslerp", [[2, 0], [3, 0]], weights=[1, 3]) == near(2.75, 0)
    assert run("nuslerp", [[2, 0], [-3, 0]], weights=[1, 3]) == near(-1.75, 0)
    # A zero model is at a right angle to all.
    assert run("nuslerp", [[0, 0], [0, 1]], weights=[1, 3]) == near(0, np.sin(0.75 * np.pi / 2))


def test_nuslerp_row_wise_means_columns():
    one, other = [1, 0, 0, 1], [0, 1, 1, 0]  # rows (1 0), (0 1) and (0 1), (1 0)
    flat = {"nuslerp_flatten": False}
    by_row = run("nuslerp", [one, other], shared=flat, row=2)
    assert by_row == near(ROOT, ROOT, ROOT, ROOT)
    two = [[1, 0, 2, 0], [0, 5, 2, 5]]  # columns (1 2), (0 0) and (0 2), (5 5)
    columns = run("nuslerp", two, shared=flat | {"nuslerp_row_wise": True}, slab=2)
    length, cosine = np.sqrt(5) * 2, 4
    half = np.arccos(cosine / length) / 2
    share = np.sin(half) / np.sin(2 * half)
    assert columns == near(share, 5 * ROOT, share * 4, 5 * ROOT)


def test_nuslerp_of_differences():
    found = run("nuslerp", [[2, 1], [1, 2]], base=[1, 1])
    assert found == near(1 + ROOT, 1 + ROOT)
    assert run("nuslerp", [SAME, [1, 2]], base=[1, 1], weights=[1, 1]) == near(1, 1 + ROOT)


def test_multislerp_is_the_mean_direction():
    third = np.sqrt(1 / 3)
    assert run("multislerp", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]) == near(third, third, third)
    # Direction (1, 2) by weights, not by lengths; length the weighted mean.
    found = run("multislerp", [[3, 0], [0, 6]], weights=[1, 2])
    assert found == near(5 / np.sqrt(5), 10 / np.sqrt(5))
    unweighted = run("multislerp", [[1, 0], [0, 2]], None, {"normalize_weights": False}, [1, -1])
    assert unweighted == near(-ROOT, ROOT)
    # Directions that cancel out: the plain weighted mean.
    assert run("multislerp", [[1, 0], [-3, 0]]) == near(-1, 0)
    assert run("multislerp", [[4, 2]], weights=[7]) == [4, 2]
    assert run("multislerp", [[1, 1]] * 3, base=[1, 1]) == [1, 1]


def test_karcher_is_symmetric_and_keeps_the_mean_length():
    third = np.sqrt(1 / 3)
    assert run("karcher", [[1, 0, 0], [0, 2, 0], [0, 0, 3]]) == near(
        2 * third, 2 * third, 2 * third
    )
    assert run("karcher", [[4, 2]]) == [4, 2]
    assert run("karcher", [[1, 2]] * 3) == near(1, 2)
    # A zero model has no direction, but a length; directions that cancel out give the first one.
    assert run("karcher", [[3, 0], [0, 0], [3, 0]]) == near(2, 0)
    assert run("karcher", [[2, 0], [-3, 0]]) == near(2.5, 0)
    assert run("karcher", [[0, 0], [0, 0]]) == [0, 0]


def test_model_stock_between_base_and_mean():
    # Right angles: t = 0. Equal ones: t = 1. At 60 degrees of two: t = 2/3.
    assert run("model_stock", [[1, 0], [0, 1]], base=[0, 0]) == near(0, 0)
    assert run("model_stock", [[3, 1], [3, 1]], base=[1, 1]) == near(3, 1)
    half = np.sqrt(0.75)
    found = run("model_stock", [[1, 0], [0.5, half]], base=[0, 0])
    assert found == near(0.5, half / 3)
    # Opposite ones have no t: the base.
    assert run("model_stock", [[1, 0], [-3, 0]], base=[0, 0]) == [0, 0]
    by_row = [[1, 0, 3, 1], [0, 1, 3, 1]]
    found = run("model_stock", by_row, base=[0, 0, 1, 1], shared={"filter_wise": True}, row=2)
    assert found == near(0, 0, 3, 1)


def test_breadcrumbs_cut_both_ends():
    terms, base = [[1, -2, 3, 4, -5, 6, 7, 8, 9, 10]], [0] * 10
    cut = {"density": 0.3, "gamma": 0.2}
    assert run("breadcrumbs", terms, base, cut) == [0, 0, 0, 0, 0, 6, 7, 8, 0, 0]
    # The density wins: at 0.9 only one of the largest can go, at 1 none.
    assert run("breadcrumbs", terms, base, {"density": 0.9, "gamma": 0.5})[-2:] == [9, 0]
    assert run("breadcrumbs", terms, base, {"density": 1, "gamma": 0.5}) == terms[0]
    assert run("breadcrumbs", terms, base, {"density": 0.05}) == base
    scaled = run("breadcrumbs", terms, base, cut | {"rescale": True})
    assert scaled[5:8] == near(*(np.array([6, 7, 8]) * 55 / 21))


def test_nearswap_swaps_what_is_near():
    found = run("nearswap", [[1.5, 0, 5, 1]], [1, 1, 1, 1], {"t": 1})
    assert found == [1.5, 0, 2, 1]
    assert run("nearswap", [[1.5, 0, 5]], [1, 1, 1], {"t": 0}) == [1, 1, 1]


def test_ram_means_what_is_shared_and_keeps_what_is_sole():
    terms, base = [[2, 2, 0, 0], [4, 0, 6, 0]], [0, 0, 0, 0]
    assert run("ram", terms, base) == [3, 2, 6, 0]
    assert run("ram", terms, base, {"epsilon": 3}) == [4, 0, 6, 0]
    # Each is alone at one element and not at another: 1 + r min(alpha, 1).
    assert run("ramplus_tl", terms, base) == near(3, 2.04, 6.12, 0)
    assert run("ramplus_tl", terms, base, {"alpha": 5, "r": 1}) == near(3, 4, 12, 0)
    assert run("ramplus_tl", [[2, 2, 0, 0]], base) == [2, 2, 0, 0]


def test_sce_votes_without_weights():
    # Energies 17/3 and 1/3: by weight the first would win the second element, by sum it does not.
    terms = [[4, -1, 0], [0, 1.5, 0]]
    first, second = (16 + 1) / 3, 2.25 / 3
    assert run("sce", terms, [0, 0, 0]) == near(4, 1.5, 0)
    both = run("sce", [[4, 1, 0], [0, 1.5, 0]], [0, 0, 0])[1]
    assert both == pytest.approx((first + 1.5 * second) / (first + second))


def test_sce_selects_where_models_differ():
    terms = [[1, 1, 1, 1, 1, 0], [1, 2, 3, 4, 1, 0]]
    # Two thirds of the three that differ; equal ones go, unless all stay.
    found = run("sce", terms, [0] * 6, {"select_topk": 0.67})
    assert [one != 0 for one in found] == [False, False, True, True, False, False]
    assert all(run("sce", terms, [0] * 6)[:5])
    assert run("sce", [[1, 1], [1, 1]], [0, 0], {"select_topk": 0.99}) == [0, 0]
    assert run("sce", [[1, 2]], [0, 0], {"select_topk": 0.5}) == [0, 0]


def test_sce_takes_small_energies_for_equal():
    # Squares of 1e-4 sum to less than 1e-6: a plain mean; of 1 they do not.
    small = run("sce", [[1e-4, 0], [2e-4, 0]], [0, 0])
    assert small[0] == pytest.approx(1.5e-4)
    assert run("sce", [[1, 0], [2, 0]], [0, 0])[0] == pytest.approx(1.8)


def test_fusion_takes_over_the_outliers():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(400)
    d = np.full(400, 0.01) * rng.choice([-1, 1], 400)
    d[[3, 77, 390]] = 0.5
    found = np.array(run("arcee_fusion", [base + d], base, row=20))
    changed = np.flatnonzero(found != base.astype(np.float32))
    # The rows with outliers have diverged, and all their changes weigh more than any other row's.
    assert set(changed // 20) == {0, 3, 19}
    assert len(changed) == 60
    assert run("arcee_fusion", [[2]], [1]) == [2]
    assert run("arcee_fusion", [[1, 2]], [1, 2]) == [1, 2]


def test_exponentials_of_the_divergence_are_those_of_the_library():
    from mergepipe.methods.fused.divergence import exponential

    x = -np.concatenate([np.linspace(0, 50, 2001), np.logspace(-12, 2.8, 500)])
    ours = np.array([exponential(one) for one in x])
    assert np.max(np.abs(ours / np.exp(x) - 1)) < 4e-16


def test_arithmetic_by_rows_wants_whole_rows():
    method = find("arcee_fusion")
    base = Full(np.zeros(6, np.float32), F32)
    unit = Unit(0, 6, base, (SAME,), Scalars.plain(1), F32, row_length=4)
    with pytest.raises(MergeInputError, match="not whole rows of 4"):
        merge(method, unit)
