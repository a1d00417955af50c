"""Every method against float64, both implementations against each other, any split into ranges."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mergepipe.dtypes import DTYPES, F32, F64
from mergepipe.methods import SAME, Full, Scalars, Scope, Unit, find, merge
from mergepipe.methods.protocol import FUSED
from tests.methods import cases
from tests.methods.merge_reference import SMALL, half_unit

DTYPE_CASES = ("BF16", "F16", "F32", "F64", "any")


def assert_close(case, result):
    dtype = case.unit.dtype.name
    expected = case.expected()
    got = cases.decode(result, dtype)
    error = np.abs(got - expected.value)
    rounding = np.maximum(half_unit(expected.value, dtype), half_unit(got, dtype))
    # Statistics of a float64 tensor are of float32 values, and angles of rows ill-conditioned.
    exact = case.method.scope is Scope.ELEMENT and not case.method.needs(case.settings)
    double = dtype == "F64" and exact
    arithmetic = (len(case.terms) + 4) * (2.0**-53 if double else SMALL)
    wrong = error > rounding + arithmetic * expected.magnitude
    # What rounding decides is counted apart: it must stay rare, and nothing else may be wrong.
    assert expected.doubtful.mean() < 0.01
    assert not (wrong & ~expected.doubtful).any(), np.flatnonzero(wrong & ~expected.doubtful)[:5]


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPE_CASES)
@pytest.mark.parametrize("name", cases.ALL)
def test_within_the_bound_of_float64(name, dtype, layout):
    for seed, count in enumerate((1, 2, 3, 5, 8)):
        rng = np.random.default_rng([seed, len(name), DTYPE_CASES.index(dtype)])
        case = cases.make(name, rng, count, dtype, layout)
        result = merge(case.method, case.unit)
        assert_close(case, result)


# The others see differences only, or take them element by element.
ANGLES = [n for n in cases.ALL if n.startswith(("slerp", "nuslerp", "multislerp", "karcher"))]


@pytest.mark.parametrize("name", ANGLES)
def test_models_far_apart(name):
    # Models of one family are all but parallel: what is done with angles hardly shows.
    for seed, count in enumerate((2, 3, 5, 8)):
        for spread in (0.05, 0.5):
            case = cases.make(name, np.random.default_rng(seed), count, "F32", spread=spread)
            assert_close(case, merge(case.method, case.unit))


@pytest.mark.parametrize("out", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("name", cases.BOTH)
def test_fused_and_torch_give_the_same_bytes(name, out):
    for seed, count in enumerate((1, 2, 4, 8)):
        for layout in cases.LAYOUTS:
            rng = np.random.default_rng([seed, len(name)])
            case = cases.make(name, rng, count, "any", layout, out=out)
            fused = merge(case.method, case.unit, backend="fused")
            eager = merge(case.method, case.unit, backend="torch")
            assert fused.tobytes() == eager.tobytes()
            assert_close(case, fused)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(cases.ALL)),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 8),
    length=st.sampled_from([0, 1, 4, 6, 1279, 1280, 1281, 4000]),
    cuts=st.lists(st.floats(0, 1), max_size=4),
    layout=st.sampled_from(cases.LAYOUTS),
)
def test_any_split_gives_the_same_bytes(name, seed, count, length, cuts, layout):
    case = cases.make(name, np.random.default_rng(seed), count, "any", layout, length)
    whole = merge(case.method, case.unit)
    places = [int(cut * case.unit.length) for cut in cuts]
    for backend in cases.backends(case.method):
        parts = [merge(case.method, unit, backend=backend) for unit in case.split(places)]
        assert b"".join(part.tobytes() for part in parts) == whole.tobytes()


@pytest.mark.parametrize("name", cases.ALL)
def test_threads_do_not_change_a_bit(name):
    case = cases.make(name, np.random.default_rng(8), 6, "any", "mixed", 60_000)
    whole = merge(case.method, case.unit)
    units = case.split(range(3_000, case.unit.length, 3_000))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda unit: merge(case.method, unit), units)
        assert b"".join(part.tobytes() for part in parts) == whole.tobytes()


@pytest.mark.parametrize("name", cases.ALL)
def test_buffers_of_any_kind_and_alignment(name):
    case = cases.make(name, np.random.default_rng(5), 3, "BF16", length=999)
    whole = merge(case.method, case.unit)
    odd = bytearray(2 * case.unit.length + 1)
    merge(case.method, shifted(case.unit), memoryview(odd)[1:])
    assert odd[1:] == whole.tobytes()


def shifted(unit):
    """The same unit with every buffer at an odd address or read-only."""

    def move(term):
        copy = bytearray(b"x" + bytes(term.data))
        return replace(term, data=memoryview(copy)[1:])

    return replace(unit, base=move(unit.base), terms=tuple(move(term) for term in unit.terms))


@pytest.mark.parametrize("name", [n for n, m in cases.ALL.items() if m.omitted_is_noop])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_no_delta_gives_the_base_back(name, dtype):
    case = cases.make(name, np.random.default_rng(1), 3, dtype)
    base = bytearray(case.unit.base.data)
    base[:4] = b"\0\0\0\x80" if dtype == "F32" else b"\0\x80\0\x80"  # minus zero
    unit = replace(case.unit, base=replace(case.unit.base, data=base))
    for terms in ([SAME] * 3, [unit.base] * 3, [SAME, unit.base, SAME]):
        own = tuple(terms[: len(unit.terms)])
        for backend in cases.backends(case.method):
            result = merge(case.method, replace(unit, terms=own), backend=backend)
            assert result.tobytes() == bytes(base)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_eight_bit_floats(dtype):
    codes = [np.arange(256, dtype=np.uint8), np.roll(np.arange(256, dtype=np.uint8), 7)]
    values = [np.array([eight_bits(int(code), dtype) for code in own]) for own in codes]
    finite = np.isfinite(values[0]) & np.isfinite(values[1])
    terms = tuple(Full(own[finite], DTYPES[dtype]) for own in codes)
    unit = Unit(0, int(finite.sum()), None, terms, Scalars.plain(2), DTYPES[dtype])
    got = [eight_bits(int(code), dtype) for code in merge(find("linear"), unit)]
    largest = 448.0 if dtype == "F8_E4M3" else 57344.0
    total = np.clip(values[0][finite] + values[1][finite], -largest, largest)
    assert (np.abs(got - total) <= half_unit(total, dtype)).all()


def eight_bits(code, dtype):
    digits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    exponent, fraction = (code & 127) >> digits, code & ((1 << digits) - 1)
    top = exponent == (127 >> digits)
    if top and (dtype == "F8_E5M2" or fraction == 7):
        return np.nan
    magnitude = np.ldexp(
        fraction + (1 << digits if exponent else 0), max(exponent, 1) - bias - digits
    )
    return -magnitude if code & 128 else magnitude


def test_sixteen_bit_conversions_are_exact_for_every_pattern():
    every = np.arange(1 << 16, dtype=np.uint16)
    for name, kind in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        unit = Unit(0, 1 << 16, None, (Full(every, DTYPES[name]),), Scalars.plain(1), F32)
        wide = merge(find("linear"), unit, backend="fused").view(np.float32)
        expected = torch.from_numpy(every.view(np.int16)).view(kind).float().numpy()
        assert np.array_equal(wide, expected, equal_nan=True)
        # And back, with the values in between: all float32 near every 16-bit one.
        near = np.concatenate(
            [
                wide.view(np.uint32) + np.uint32(k)
                for k in (0, 1, 0x800, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
            ]
        )
        unit = Unit(0, near.size, None, (Full(near, F32),), Scalars.plain(1), DTYPES[name])
        results = [merge(find("linear"), unit, backend=b).tobytes() for b in ("fused", "torch")]
        assert results[0] == results[1]


@pytest.mark.parametrize(("name", "half"), [("BF16", 2.0**-8), ("F16", 2.0**-11)])
def test_float64_is_rounded_once_to_sixteen_bits(name, half):
    # Just above, at and just below the middle: by way of float32 all three would be the middle.
    values = 1 + half + np.array([2.0**-40, 0, -(2.0**-40)])
    values = np.concatenate([values, -values, values * 2 * half, [65504.0, np.inf, 0.0]])
    unit = Unit(0, 12, None, (Full(values, F64),), Scalars.plain(1), DTYPES[name])
    got = cases.decode(merge(find("linear"), unit), name)
    up = np.array([1 + 2 * half, 1, 1])
    assert got[:9].tolist() == np.concatenate([up, -up, up * 2 * half]).tolist()
    assert got[10:].tolist() == [np.inf, 0]


def test_fused_dtypes_are_tested():
    assert {dtype.name for dtype in FUSED} == {"BF16", "F16", "F32"}
