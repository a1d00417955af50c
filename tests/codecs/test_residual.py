"""What `residual` promises beyond a round trip: its sizes, its coarse layer, its statistics."""

import numpy as np
import numpy.typing as npt
import pytest

from mergepipe.codecs.bitx import BitX
from mergepipe.codecs.coarse import coarse_head, coarse_symbols
from mergepipe.codecs.residual import LARGE_SHARE, Residual, analyse
from mergepipe.codecs.trits import (
    CHUNK,
    estimate_into,
    pack_into,
    packed_length,
    trits_at,
    unpack_into,
)
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, F16, F32, DType

WORKSPACE = Workspace()

Reals = npt.NDArray[np.float32]


def fine_tune(size: int, unchanged: float = 0.0, seed: int = 0) -> tuple[Reals, Reals]:
    random = np.random.default_rng(seed)
    base = random.normal(0, 0.02, size).astype(np.float32)
    change = random.normal(0, 2e-4, size).astype(np.float32)
    return base + change * (random.random(size) >= unchanged), base


def narrow(x: Reals, dtype: DType) -> bytes:
    if dtype is F32:
        return x.tobytes()
    if dtype is F16:
        return x.astype(np.float16).tobytes()
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def real(data: bytes, dtype: DType) -> Reals:
    if dtype is F32:
        return np.frombuffer(data, np.float32)
    if dtype is F16:
        return np.frombuffer(data, np.float16).astype(np.float32)
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize(
    ("unchanged", "of_raw", "of_bitx"), [(0.0, 0.25, 0.69), (0.7, 0.116, 0.61)]
)
def test_sizes(unchanged: float, of_raw: float, of_bitx: float) -> None:
    raw, base = (narrow(x, BF16) for x in fine_tune(1 << 19, unchanged))
    coarse, exact = map(len, Residual().encode(raw, base, BF16, WORKSPACE))
    assert coarse + exact < of_raw * len(raw)
    assert coarse + exact < of_bitx * len(BitX(3).encode(raw, base, BF16, WORKSPACE)[0])
    assert coarse < 0.082 * len(raw)


def test_an_unchanged_block_costs_a_few_hundred_bytes() -> None:
    raw = narrow(fine_tune(1 << 19)[0], BF16)
    assert sum(map(len, Residual().encode(raw, raw, BF16, WORKSPACE))) < 500


def test_unchanged_rows_cost_next_to_nothing() -> None:
    tuned, base = fine_tune(1 << 19)
    tuned[: 1 << 18] = base[: 1 << 18]
    half = sum(
        map(len, Residual().encode(narrow(tuned, BF16), narrow(base, BF16), BF16, WORKSPACE))
    )
    shorter, under = fine_tune(1 << 18)
    whole = sum(
        map(len, Residual().encode(narrow(shorter, BF16), narrow(under, BF16), BF16, WORKSPACE))
    )
    assert half < 1.05 * whole


@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
@pytest.mark.parametrize("size", [1, 159, 160, 5120, 5121, 50_003])
def test_statistics_are_those_of_the_definition(dtype: DType, size: int) -> None:
    raw, base = (narrow(x, dtype) for x in fine_tune(size, 0.2, size))
    layers, figures = Residual().encode_with_statistics(raw, base, dtype, WORKSPACE)
    change = real(raw, dtype) - real(base, dtype)
    sizes = np.abs(change)
    large = sizes >= np.float32(figures.threshold)
    assert figures.count == size
    assert figures.changed == np.count_nonzero(change)
    assert figures.large == np.count_nonzero(large & (sizes > 0))
    assert figures.largest == sizes.max()
    assert figures.magnitude == pytest.approx(sizes[large].mean() if figures.large else 0, rel=4e-3)
    double = change.astype(np.float64)
    assert figures.energy == pytest.approx((double**2).sum(), rel=1e-2 if size < 500 else 5e-4)
    if size > 5000:
        assert abs(figures.large / size - LARGE_SHARE) < 0.01
        left = double - np.sign(change) * large * figures.magnitude
        assert figures.captured == pytest.approx(figures.energy - (left**2).sum(), rel=2e-3)
    assert (figures.exact + figures.inexact).sum() == size
    keys = sizes.view(np.uint32) >> 16
    assert np.array_equal(figures.keys, np.unique(keys))
    whole = np.bincount(keys[sizes.view(np.uint32) & 0xFFFF == 0], minlength=1 << 15)
    assert np.array_equal(figures.exact, whole[figures.keys])
    trits = np.where(large & (sizes > 0), np.where(change > 0, 2, 1), 0)
    assert np.array_equal(trits_at(figures.packed, np.arange(size)), trits)
    assert np.array_equal(coarse_symbols(layers[0], size, WORKSPACE), figures.packed)
    estimate = np.empty(size, np.float32)
    head = coarse_head(layers[0])
    assert (head.magnitude, head.threshold) == (figures.magnitude, figures.threshold)
    estimate_into(figures.packed, np.float32(head.magnitude), estimate)
    assert np.array_equal(
        estimate, np.array([0, -1, 1], np.float32)[trits] * np.float32(head.magnitude)
    )
    alone = analyse(raw, base, dtype, WORKSPACE)
    assert (alone.energy, alone.captured) == (figures.energy, figures.captured)
    assert np.array_equal(alone.packed, figures.packed)


def test_infinities_and_nans_are_restored_and_not_counted() -> None:
    tuned, base = fine_tune(10_000)
    tuned[::100], tuned[1::100], base[2::100] = np.inf, np.nan, -np.inf
    raw, before = narrow(tuned, BF16), narrow(base, BF16)
    layers, figures = Residual().encode_with_statistics(raw, before, BF16, WORKSPACE)
    out = bytearray(len(raw))
    Residual().decode_into(layers, before, memoryview(out), WORKSPACE)
    assert out == raw
    assert np.isfinite([figures.energy, figures.magnitude, figures.largest]).all()
    assert not trits_at(figures.packed, np.arange(0, 10_000, 100)).any()


def test_packing_is_undone() -> None:
    trits = np.random.default_rng(0).integers(0, 3, 4 * CHUNK).astype(np.uint8)
    packed, back = np.zeros(packed_length(trits.size), np.uint8), np.zeros_like(trits)
    pack_into(trits, packed)
    unpack_into(packed, back)
    assert packed.max() < 243
    assert np.array_equal(back, trits)
