"""What a block is said to take is about what it takes."""

import numpy as np
import pytest

from mergepipe.codecs.estimates import residual_bytes
from mergepipe.codecs.residual import Residual
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, F16, F32, DType

COUNT = 40_000
WORKSPACE = Workspace()


def stored(values: np.ndarray, dtype: DType) -> bytes:
    """Values as a block of a dtype."""
    singles = values.astype(np.float32)
    if dtype == F16:
        return singles.astype(np.float16).tobytes()
    return (
        singles.tobytes()
        if dtype == F32
        else (singles.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    )


def estimate_and_size(change: np.ndarray, dtype: DType) -> tuple[int, int]:
    base = np.random.default_rng(0).normal(0, 0.05, change.size)
    raw, under = stored(base + change, dtype), stored(base, dtype)
    size = sum(map(len, Residual().encode(raw, under, dtype, WORKSPACE)))
    return residual_bytes([(raw, under)], dtype, WORKSPACE), size


@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("step", [1e-5, 3e-4, 3e-3, 0.05])
def test_within_a_few_percent(dtype: DType, step: float) -> None:
    change = np.random.default_rng(1).normal(0, step, COUNT)
    estimate, size = estimate_and_size(change, dtype)
    assert abs(estimate - size) <= 0.08 * size + 800


def test_rows_that_changed_among_rows_that_did_not() -> None:
    change = np.random.default_rng(1).normal(0, 3e-3, (200, 200))
    change[::5] = 0
    estimate, size = estimate_and_size(change.ravel(), BF16)
    assert abs(estimate - size) <= 0.08 * size


@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000])
def test_short_blocks_and_bytes_left_over(dtype: DType, length: int) -> None:
    raw, under = bytes(range(256)) * 4, bytes(1024)
    size = sum(map(len, Residual().encode(raw[:length], under[:length], dtype, WORKSPACE)))
    assert abs(residual_bytes([(raw[:length], under[:length])], dtype, WORKSPACE) - size) <= 800


def test_infinite_and_nan_weights_count() -> None:
    odd = np.array([0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0, 0x8000] * 200, np.uint16)
    estimate = residual_bytes([(odd.tobytes(), np.roll(odd, 1).tobytes())], BF16, WORKSPACE)
    assert 0 < estimate < 2 * odd.nbytes
