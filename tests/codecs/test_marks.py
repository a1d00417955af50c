"""Marks of large changes: what they are, and that a sample says well where a change is large."""

import numpy as np
import numpy.typing as npt
import pytest

from mergepipe.codecs.floats import float_format
from mergepipe.codecs.marks import Marks, mark_block
from mergepipe.codecs.pieces import octets
from mergepipe.codecs.successor import Anchor, Successor
from mergepipe.codecs.trits import CLASS_STARTS, packed_length, unpack_into
from mergepipe.codecs.weights import weights_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, F16, F32, DType

WORKSPACE = Workspace()
DTYPES = pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=lambda dtype: dtype.name)


def narrow(x: npt.NDArray[np.float32], dtype: DType) -> bytes:
    if dtype == F32:
        return x.tobytes()
    if dtype == F16:
        return x.astype(np.float16).tobytes()
    return (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def real(data: bytes, dtype: DType) -> npt.NDArray[np.float32]:
    if dtype == F32:
        return np.frombuffer(data, np.float32)
    if dtype == F16:
        return np.frombuffer(data, np.float16).astype(np.float32)
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)


def pair(change: npt.NDArray[np.float64], dtype: DType) -> tuple[bytes, bytes]:
    base = np.random.default_rng(0).normal(0, 0.05, change.size).astype(np.float32)
    return narrow(base + change.astype(np.float32), dtype), narrow(base, dtype)


def marked(raw: bytes, base: bytes, dtype: DType, share: float) -> Marks:
    weights = weights_of(octets(raw), octets(base), float_format(dtype), WORKSPACE)
    return mark_block(weights, share, WORKSPACE)


@DTYPES
@pytest.mark.parametrize("count", [1, 159, 321, 5000, 70_001])
def test_trits_are_those_of_the_threshold(dtype: DType, count: int) -> None:
    raw, base = pair(np.random.default_rng(1).normal(0, 3e-3, count), dtype)
    marks = marked(raw, base, dtype, 0.3)
    change = real(raw, dtype) - real(base, dtype)
    wanted = np.where(np.abs(change) >= marks.threshold, np.where(change > 0, 2, 1), 0)
    assert np.array_equal(marks.trits[:count], wanted)
    assert not marks.trits[count:].any()
    unpacked = np.empty(packed_length(count) * 5, np.uint8)
    unpack_into(marks.packed, unpacked)
    assert np.array_equal(unpacked, marks.trits)
    held = (marks.trits.reshape(-1, 160) != 0).sum(1)
    assert np.array_equal(marks.classes, np.searchsorted(CLASS_STARTS, held, side="right"))


@DTYPES
@pytest.mark.parametrize("share", [0.02, 0.35])
def test_a_sample_says_what_is_large(dtype: DType, share: float) -> None:
    change = np.random.default_rng(1).normal(0, 3e-3, (512, 512))
    change *= np.random.default_rng(2).uniform(0.3, 3, 512)  # columns that move more than others
    raw, base = pair(change.ravel(), dtype)
    marks = marked(raw, base, dtype, share)
    large = marks.trits != 0
    assert large.mean() == pytest.approx(share, rel=0.15)
    sizes = np.abs(real(raw, dtype) - real(base, dtype))[large[: change.size]]
    assert marks.magnitude == pytest.approx(sizes.mean(), rel=0.05)


def test_changes_that_no_sample_has_are_looked_for() -> None:
    change = np.zeros(200_000)
    change[1000:1300] = 0.01  # between two runs of the sample
    raw, base = pair(change, BF16)
    marks = marked(raw, base, BF16, 0.02)
    assert np.count_nonzero(marks.trits) > 0 and marks.magnitude > 0


@DTYPES
def test_successors_of_any_change_come_back(dtype: DType) -> None:
    chance = np.random.default_rng(3)
    for count, step in ((1, 1.0), (70_001, 1e-6), (70_001, 1e-2), (140_000, 10.0)):
        after, before = pair(chance.normal(0, step, count), dtype)
        anchor = Anchor(bytes(32), narrow(chance.normal(0, 0.05, count).astype(np.float32), dtype))
        payloads, _ = Successor().encode_after(after, before, anchor, dtype, WORKSPACE)
        out = bytearray(len(after))
        Successor().decode_into(payloads, before, memoryview(out), WORKSPACE)
        assert bytes(out) == after
