"""The corners of the formulas, one small merge each; values chosen so that float32 is exact."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.dtypes import DTYPES, F32
from mergepipe.errors import MergeInputError
from mergepipe.methods import (
    SAME,
    Coarse,
    Delta,
    ExpertScalars,
    Full,
    Need,
    NeedKind,
    Scalars,
    Unit,
    find,
    merge,
)
from mergepipe.methods import statistics as stats


def full(*values):
    return Full(np.array(values, np.float32), F32)


def delta(*values):
    return Delta(np.array(values, np.float32))


def unit_of(terms, scalars, base=None):
    length = len(next(t.data for t in terms if isinstance(t, Full | Delta)))
    return Unit(0, length, base, tuple(terms), scalars, F32)


def run(name, terms, base=None, shared=None, experts=None):
    method = find(name)
    settings = method.settings(shared or {}, experts or [{} for _ in terms])
    unit = unit_of(terms, Scalars.plain(len(terms)), base)
    values = {need: stats.measure(need, [unit]) for need in method.needs(settings)}
    unit = replace(unit, scalars=method.resolve(settings, values))
    results = [merge(method, unit, backend=b).view(np.float32).tolist() for b in ("fused", "torch")]
    assert results[0] == results[1]
    return results[0]


ZERO = full(0, 0, 0, 0)


def test_ties_a_sum_of_zero_elects_plus():
    assert run("ties", [delta(1), delta(-1)], full(8)) == [9]


def test_ties_exact_zeros_never_agree():
    # Elected +; the zero is neither in the sum nor in the divisor.
    assert run("ties", [delta(2), delta(0), delta(4)], full(0)) == [3]
    # Nothing agrees at all: divisor 0 counts as 1.
    assert run("ties", [delta(0), delta(0)], full(5)) == [5]


def test_ties_mean_over_those_that_agree():
    terms = [delta(4, -4), delta(2, -2), delta(-1, 1)]
    weights = [{"weight": 1}, {"weight": 3}, {"weight": 1}]
    assert run("ties", terms, full(0, 0), experts=weights) == [2.5, -2.5]
    assert run("ties", terms, full(0, 0), {"normalize": False}, weights) == [10, -10]
    assert run("ties", terms, full(0, 0), {"lambda": 2}, weights) == [5, -5]


def test_ties_a_negative_weight_turns_the_delta_and_stays_in_the_divisor():
    # w d = -4 and -1: elected -, sum -5; weights kept -2 + 1.
    experts = [{"weight": -2}, {"weight": 1}]
    assert run("ties", [delta(2), delta(-1)], full(0), experts=experts) == [5]


def test_trim_keeps_ties_with_the_threshold():
    terms = [delta(1, -2, 2, 3)]
    assert run("ties", terms, ZERO, {"density": 0.5}) == [0, -2, 2, 3]
    assert run("ties", terms, ZERO, {"density": 0.25}) == [0, 0, 0, 3]
    assert run("ties", terms, ZERO, {"density": 0.01}) == [0, 0, 0, 3]  # k is at least 1
    assert run("ties", terms, ZERO, {"density": 0}) == [0, 0, 0, 0]
    assert run("ties", [delta(0, 0, 0, 3)], ZERO, {"density": 0.5}) == [0, 0, 0, 3]


def test_ties_rescale_restores_the_norm():
    assert run("ties", [delta(1, -1, 2, 4)], ZERO, {"density": 0.5, "rescale": True}) == [
        0,
        0,
        pytest.approx(8 / 3),
        pytest.approx(16 / 3),
    ]


def test_task_arithmetic_and_its_divisor():
    terms, base = [delta(1), full(12)], full(8)
    assert run("task_arithmetic", terms, base, {"lambda": 0.5}) == [10.5]
    experts = [{"weight": 1}, {"weight": -1}]
    # Weights that sum to nothing divide by 1.
    assert run("task_arithmetic", terms, base, {"normalize": True}, experts) == [5]


def test_an_omitted_expert_keeps_its_weight_in_linear_and_in_plain_divisors():
    assert run("linear", [full(4), SAME], full(0)) == [2]
    assert run("linear", [full(4), SAME], full(8), {"normalize": False}) == [12]
    assert run("task_arithmetic", [delta(4), SAME], full(0), {"normalize": True}) == [2]
    assert run("ties", [delta(4), SAME], full(0)) == [4]


def test_linear_needs_no_base():
    assert run("linear", [full(1, 2), full(3, 6)], experts=[{"weight": 3}, {"weight": 1}]) == [
        1.5,
        3,
    ]


def test_slerp_on_the_circle_and_on_the_line():
    half = np.float32(np.sqrt(0.5))
    assert run("slerp", [full(1, 0), full(0, 1)], shared={"t": 0.5}) == [half, half]
    assert run("slerp", [full(1, 0), full(3, 0)], shared={"t": 0.5}) == [2, 0]
    assert run("slerp", [full(1, 0), full(-3, 0)], shared={"t": 0.25}) == [0, 0]
    assert run("slerp", [full(0, 0), full(0, 2)], shared={"t": 0.0}) == [0, 0]
    # The first model is the base.
    assert run("slerp", [SAME, full(0, 1)], full(1, 0), {"t": 1.0}) == [pytest.approx(0), 1]


def test_passthrough_copies_what_it_cannot_compute():
    data = np.arange(5, dtype=np.int64)
    unit = Unit(0, 5, None, (Full(data, DTYPES["I64"]),), Scalars.plain(1), DTYPES["I64"])
    assert merge(find("passthrough"), unit).tobytes() == data.tobytes()
    scaled = replace(unit, scalars=Scalars((ExpertScalars(weight=2.0),)))
    with pytest.raises(MergeInputError, match="cannot compute in I64"):
        merge(find("passthrough"), scaled)
    two = replace(unit, terms=unit.terms * 2, scalars=Scalars.plain(2))
    with pytest.raises(MergeInputError, match="cannot compute in I64"):
        merge(find("linear"), two)
    assert not find("linear").accepts(DTYPES["I64"])


def test_coarse_terms_are_scaled_and_not_trimmed():
    packed = bytes([0 + 3 * 1 + 9 * 2 + 27 * 0 + 81 * 1])  # 0 - + 0 -
    scalars = Scalars(
        (ExpertScalars(threshold=100.0, coarse_scale=0.5),), elect=True, normalize=True
    )
    base = full(1, 1, 1, 1, 1)
    unit = Unit(0, 5, base, (Coarse(packed, 4.0),), scalars, F32)
    for backend in ("fused", "torch"):
        result = merge(find("ties"), unit, backend=backend).view(np.float32)
        assert result.tolist() == [1, -1, 3, 1, -1]
        part = replace(unit, base=full(1, 1), length=2, terms=(Coarse(packed, 4.0, skip=2),))
        assert merge(find("ties"), part, backend=backend).view(np.float32).tolist() == [3, 1]


def test_resolving_a_trim_takes_the_coarse_shares():
    method = find("ties")
    settings = method.settings({}, [{"density": 0.5}, {}])
    need = Need(NeedKind.TRIM, 0, 0.5)
    assert method.needs(settings) == (need,)
    scalars = method.resolve(settings, {need: (0.25, 0.5, 2.0, 1.0)}, [0.7, 0.7])
    assert scalars.experts == (ExpertScalars(threshold=0.25, coarse_scale=0.7), ExpertScalars())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": ()}, "0 terms, but scalars for 1"),
        ({"terms": (full(1, 2, 3),)}, "12 bytes for 2 elements"),
        ({"terms": (Coarse(b"", 1.0),)}, "0 trits for 0 \\+ 2"),
        ({"terms": (Coarse(b"\0\0", 1.0, 5),)}, "5 trits to skip"),
        ({"base": None, "terms": (SAME,)}, "without a base"),
        ({"base": None, "terms": (full(1, 2),)}, "method ties needs a base"),
        ({"base": full(1)}, "base: 4 bytes for 2"),
    ],
)
def test_units_that_do_not_fit(change, message):
    unit = unit_of([full(1, 2)], Scalars.plain(1), full(0, 0))
    with pytest.raises(MergeInputError, match=message):
        merge(find("ties"), replace(unit, **change))


def test_output_buffers_that_do_not_fit():
    unit = unit_of([full(1, 2)], Scalars.plain(1))
    with pytest.raises(MergeInputError, match="output of 4 bytes"):
        merge(find("linear"), unit, bytearray(4))


def test_invalid_numbers_have_one_bit_pattern():
    weird = np.array([0x7FC12345, 0xFFC00000, 0x7F800001, 0x7F800000], np.uint32)
    for name, nan in (("F32", 0x7FC00000), ("BF16", 0x7FC0), ("F16", 0x7E00)):
        wide = np.tile(weird, 40)  # long enough for vectors
        unit = Unit(0, wide.size, None, (Full(wide, F32),) * 2, Scalars.plain(2), DTYPES[name])
        for backend in ("fused", "torch"):
            bits = merge(find("linear"), unit, backend=backend)
            words = bits.view(np.uint32 if name == "F32" else np.uint16).reshape(-1, 4)
            assert set(words[:, :3].ravel().tolist()) == {nan}
