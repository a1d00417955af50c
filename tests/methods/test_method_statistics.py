"""Whole-tensor statistics: exact counts and measured passes agree, and with numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mergepipe.dtypes import F32
from mergepipe.errors import MergeInputError
from mergepipe.methods import (
    SAME,
    Coarse,
    Full,
    Need,
    NeedKind,
    Scalars,
    Scope,
    Unit,
    find,
    order,
)
from mergepipe.methods import statistics as stats
from mergepipe.methods.trim import Band, band_from_counts, coarse_share, from_counts
from tests.methods import cases
from tests.methods import mergekit_formulas as formulas


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("density", [1.0, 0.7, 0.5, 0.01, 1e-9, 0.0])
def test_counts_and_passes_give_the_same_trim(dtype, density):
    case = cases.make("ties", np.random.default_rng(3), 2, dtype, length=5003)
    need = Need(NeedKind.TRIM, 1, density)
    measured = stats.measure(need, case.split([100, 1300, 4000]))
    assert measured is not None
    d = np.abs(case.terms[1].delta(case.base).astype(np.float32))
    magnitudes, counts = np.unique(d, return_counts=True)
    known = from_counts(magnitudes, counts, density, len(d))
    assert measured[:2] == known[:2]
    assert measured == pytest.approx(known, rel=1e-12)
    nonzero = (
        from_counts(magnitudes[1:], counts[1:], density, len(d)) if magnitudes[0] == 0 else known
    )
    assert nonzero == known
    if 0 < density < 1:
        k = max(1, int(density * len(d)))
        assert known.threshold == np.sort(d)[-k]
        assert known.density == (d >= known.threshold).mean()
        assert known.l1_kept == pytest.approx(d[d >= known.threshold].sum(dtype=float))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 1e-30]), min_size=1, max_size=40),
    st.floats(0.001, 0.999),
)
def test_trims_with_many_ties(values, density):
    d = np.array(values, np.float32)
    magnitudes, counts = np.unique(d, return_counts=True)
    trim = from_counts(magnitudes, counts, density, len(d))
    k = max(1, int(density * len(d)))
    assert trim.threshold == np.sort(d)[-k]
    assert trim.density * len(d) == pytest.approx((d >= trim.threshold).sum())


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("density", [1.0, 0.7, 0.5, 0.01, 1e-9, 0.0])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.4, 1.0])
def test_counts_and_passes_give_the_same_band(dtype, density, gamma):
    case = cases.make("breadcrumbs", np.random.default_rng(3), 2, dtype, length=5003)
    need = Need(NeedKind.BAND, 1, density, gamma)
    measured = stats.measure(need, case.split([100, 1300, 4000]))
    assert measured is not None
    d = np.abs(case.terms[1].delta(case.base).astype(np.float32))
    magnitudes, counts = np.unique(d, return_counts=True)
    known = stats.from_counts(need, magnitudes, counts, len(d))
    assert isinstance(known, Band)
    assert measured[:3] == known[:3]
    assert measured[3:] == pytest.approx(known[3:], rel=1e-9)
    if magnitudes[0] == 0:
        assert stats.from_counts(need, magnitudes[1:], counts[1:], len(d)) == known
    if density < 1:
        kept = formulas.band(case.terms[1].delta(case.base), density, gamma)
        assert known.density == pytest.approx(((d >= known[0]) & (d <= known[1])).mean())
        assert known.l1_kept == pytest.approx(np.abs(kept.astype(np.float32)).sum(dtype=float))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 1e-30]), min_size=1, max_size=40),
    st.floats(0.0, 0.999),
    st.floats(0.0, 1.0),
)
def test_bands_with_many_ties(values, density, gamma):
    d = np.array(values, np.float32)
    magnitudes, counts = np.unique(d, return_counts=True)
    n, kept = len(d), int(density * len(d))
    for zeros in (0, 1):
        if zeros and magnitudes[0] != 0:
            continue
        band = band_from_counts(magnitudes[zeros:], counts[zeros:], density, gamma, n)
        inside = (d >= band.threshold) & (d <= band.ceiling)
        assert inside.sum() == pytest.approx(band.density * n)
        assert band.l1_kept == pytest.approx(d[inside].sum(dtype=float))
        assert inside.sum() >= kept
        falling = np.sort(d)[::-1]
        dropped = min(int(gamma * n), n - kept)
        if kept:
            assert (band.ceiling, band.threshold) == (falling[dropped], falling[dropped + kept - 1])
    unit = Unit(0, n, Full(d, F32), (Full(2 * d, F32),), Scalars.plain(1), F32)
    assert stats.measure(Need(NeedKind.BAND, 0, density, gamma), [unit]) == pytest.approx(band)


@pytest.mark.parametrize("name", [n for n in cases.ALL if n not in ("linear", "passthrough")])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_statistics_hardly_depend_on_the_split(name, layout):
    case = cases.make(name, np.random.default_rng(2), 4, "any", layout, length=4200)
    for need in case.method.needs(case.settings):
        if need.kind in stats.COUNTED:
            continue  # not of estimates; and tested above
        whole = stats.measure(need, [case.unit])
        parts = stats.measure(need, case.split(range(0, 4200, 600)))
        assert parts == pytest.approx(whole, rel=1e-12)
        assert stats.partial(need, case.unit).nbytes <= 768 << 10


@pytest.mark.parametrize("dtype", ["BF16", "any", "F64"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_gram_matrix_of_differences(dtype, layout):
    case = cases.make("model_stock", np.random.default_rng(4), 4, dtype, layout)
    ds = np.array(case.deltas())
    got = stats.measure(Need(NeedKind.DELTA_GRAM), case.split([1000]))
    assert np.allclose(np.reshape(got, (4, 4)), ds @ ds.T, rtol=1e-6, atol=1e-12)


def test_order_statistics_are_exact():
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal(5000) * 10.0 ** rng.integers(-12, 3, 5000))
    values = values.astype(np.float32)
    values[:400] = values[400:800]  # ties
    falling = np.sort(values)[::-1]
    buckets = order.bucket_counts(values)
    for rank in (1, 2, 17, 1250, 2500, 4999, 5000):
        inside = order.place_counts(values, order.find(buckets, rank)[0])
        assert np.float32(order.value_at(buckets, inside, rank)) == falling[rank - 1]


def test_ranges_of_whole_rows():
    unit = Unit(0, 6, Full(np.zeros(6, np.float32), F32), (SAME,), Scalars.plain(1), F32)
    need = Need(NeedKind.RANK_L1, 0, 0.5, epsilon=0.1)
    assert stats.of(need).scope is Scope.ROW
    for row, start in ((0, 0), (4, 0), (3, 1)):
        with pytest.raises(MergeInputError, match="not whole rows"):
            stats.partial(need, replace(unit, row_length=row, start=start))
    with pytest.raises(MergeInputError, match="columns are not known"):
        two = replace(unit, terms=(SAME, SAME), scalars=Scalars.plain(2))
        stats.measure(Need(NeedKind.DELTA_COLUMNS), [two])


def test_a_threshold_is_not_measured_on_estimates():
    case = cases.make("ties", np.random.default_rng(0), 1, "BF16", length=10)
    unit = Unit(0, 10, case.unit.base, (Coarse(b"\0\0", 1.0),), Scalars.plain(1), case.unit.dtype)
    with pytest.raises(MergeInputError, match="coarse"):
        stats.measure(Need(NeedKind.TRIM, 0, 0.5), [unit])


def test_a_statistic_needs_at_least_one_range():
    with pytest.raises(MergeInputError, match="no ranges"):
        stats.measure(Need(NeedKind.GRAM), [])


@pytest.mark.parametrize("dtype", ["BF16", "any", "F64"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_gram_matrix_of_any_terms(dtype, layout):
    case = cases.make("linear", np.random.default_rng(4), 4, dtype, layout)
    values = np.array([t.value(case.base) for t in case.terms])
    got = stats.measure(Need(NeedKind.GRAM), case.split([1000]))
    expected = values @ values.T
    assert np.allclose(np.reshape(got, (4, 4)), expected, rtol=1e-6, atol=1e-6)


def test_sums_depend_on_the_split_alone():
    case = cases.make("linear", np.random.default_rng(4), 2, "F32")
    need = Need(NeedKind.GRAM)
    units = case.split([700, 2000])
    forwards = [stats.partial(need, unit) for unit in units]
    backwards = [stats.partial(need, unit) for unit in reversed(units)][::-1]
    assert stats.combine(forwards).tobytes() == stats.combine(backwards).tobytes()


def test_passes():
    ties, dare = find("ties"), find("dare_ties")
    trim = ties.needs(ties.settings({"density": 0.5}, [{}]))
    assert stats.passes(trim) == 1
    assert stats.passes(trim, exact_counts=False) == 3
    by_norm = dare.needs(dare.settings({"density": 0.5, "rescale_norm": "l1"}, [{}]))
    assert stats.passes(by_norm) == 2
    assert stats.passes(dare.needs(dare.settings({"density": 0.5}, [{}]))) == 1
    crumbs = find("breadcrumbs")
    band = crumbs.needs(crumbs.settings({"density": 0.5}, [{}]))
    assert (stats.passes(band), stats.passes(band, exact_counts=False)) == (1, 3)
    sce = find("sce")
    assert stats.passes(sce.needs(sce.settings({"select_topk": 0.5}, [{}]))) == 4
    assert stats.passes(sce.needs(sce.settings({}, [{}]))) == 2
    assert stats.passes(find("slerp").needs(find("slerp").settings({"t": 0.5}, [{}, {}]))) == 2


def test_the_share_of_a_coarse_layer_that_a_trim_keeps():
    magnitudes = np.array([0.0, 1.0, 2.0, 4.0], np.float32)
    counts = np.array([10, 4, 2, 1])
    assert coarse_share(magnitudes, counts, 1.0, 0.0) == 1.0
    assert coarse_share(magnitudes, counts, 1.0, 2.0) == 8 / 12
    assert coarse_share(magnitudes, counts, 2.0, 3.0) == 4 / 8
    assert coarse_share(magnitudes, counts, 1.0, np.inf) == 0.0
    assert coarse_share(magnitudes, counts, 5.0, 1.0) == 1.0
    assert coarse_share(magnitudes, counts, 1.0, 0.0, ceiling=2.0) == 8 / 12
