"""Whole-tensor statistics: exact counts and measured passes agree, and with numpy."""

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import MergeInputError
from mergepipe.methods import Coarse, Need, NeedKind, Scalars, Unit, find
from mergepipe.methods import statistics as stats
from mergepipe.methods.trim import coarse_share, from_counts


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("density", [1.0, 0.7, 0.5, 0.01, 1e-9, 0.0])
def test_counts_and_passes_give_the_same_trim(dtype, density):
    case = cases.make("ties", np.random.default_rng(3), 2, dtype, length=5003)
    need = Need(NeedKind.TRIM, 1, density)
    measured = stats.measure(need, case.split([100, 1300, 4000]))
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
    assert stats.passes(find("slerp").needs(find("slerp").settings({"t": 0.5}, [{}, {}]))) == 2


def test_the_share_of_a_coarse_layer_that_a_trim_keeps():
    magnitudes = np.array([0.0, 1.0, 2.0, 4.0], np.float32)
    counts = np.array([10, 4, 2, 1])
    assert coarse_share(magnitudes, counts, 1.0, 0.0) == 1.0
    assert coarse_share(magnitudes, counts, 1.0, 2.0) == 8 / 12
    assert coarse_share(magnitudes, counts, 2.0, 3.0) == 4 / 8
    assert coarse_share(magnitudes, counts, 1.0, np.inf) == 0.0
    assert coarse_share(magnitudes, counts, 5.0, 1.0) == 1.0
