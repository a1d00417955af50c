"""Coarse readings under an election are shortened to the norm that the exact merge has."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.catalog.view import TensorView
from mergepipe.ids import ObjectId
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.objects.merging import TensorProfile
from mergepipe.planner.elections import shortening

ELEMENTS, KEPT = 1 << 17, 0.35


def elected_norm(deltas: list[np.ndarray]) -> float:
    """The norm of the mean of what agrees with the sign of the sum."""
    chosen = np.where(sum(deltas) >= 0, 1, -1)
    agree = [np.sign(delta) == chosen for delta in deltas]
    merged = sum(np.where(mask, delta, 0) for mask, delta in zip(agree, deltas, strict=True))
    return float(np.linalg.norm(merged / np.maximum(sum(mask.astype(int) for mask in agree), 1)))


def profiled(delta: np.ndarray) -> tuple[TensorView, np.ndarray]:
    """A profile of one block, and what its coarse layer reads."""
    size = np.abs(delta)
    threshold = np.quantile(size, 1 - KEPT)
    large = size >= threshold
    magnitude = np.float32(size[large].mean())
    values, counts = np.unique(size, return_counts=True)
    positions = (2 * np.arange(4096) + 1) * ELEMENTS // (2 * 4096)
    trits = np.where(large, np.where(delta < 0, 1, 2), 0)[positions]
    padded = np.append(trits, np.zeros(-len(trits) % 5, np.int64)).reshape(-1, 5)
    profile = TensorProfile(
        "tensor",
        ObjectId(b"\0" * 32),
        ObjectId(b"\1" * 32),
        np.array([np.square(size.astype(np.float64)).sum()]).tobytes(),
        np.array([ELEMENTS], "<u4").tobytes(),
        np.array([size.max()], "<f4").tobytes(),
        np.array([threshold], "<f4").tobytes(),
        np.array([magnitude], "<f4").tobytes(),
        np.array([large.sum()], "<u4").tobytes(),
        b"\0" * 32,
        np.diff(values.view(np.uint32), prepend=np.uint32(0)).astype("<u4").tobytes(),
        counts.astype("<u8").tobytes(),
        (padded * 3 ** np.arange(5)).sum(axis=1).astype(np.uint8).tobytes(),
    )
    return TensorView(profile), np.where(large, np.sign(delta) * magnitude, 0)


@pytest.mark.parametrize("experts", [3, 8])
def test_the_factor_gives_the_merge_its_norm(experts: int) -> None:
    random = np.random.default_rng(experts)
    deltas = [random.laplace(size=ELEMENTS).astype(np.float32) for _ in range(experts)]
    views, readings = zip(*map(profiled, deltas), strict=True)
    scalars = Scalars.plain(experts)
    scalars = replace(scalars, elect=True, normalize=True)
    factor = shortening(views, scalars, [True] * experts)
    assert factor < 0.95
    expected = elected_norm(deltas) / elected_norm(list(readings))
    assert factor == pytest.approx(expected, abs=0.04)
    assert factor == shortening(views, scalars, [True] * experts)


def test_exact_readings_and_single_experts_are_left_as_they_are() -> None:
    delta = np.random.default_rng(0).laplace(size=ELEMENTS).astype(np.float32)
    view, _ = profiled(delta)
    scalars = Scalars((ExpertScalars(), ExpertScalars()), elect=True, normalize=True)
    assert shortening([view, view], scalars, [False, False]) == 1.0
    assert shortening([view], Scalars.plain(1), [True]) == 1.0
    assert shortening([view, None], scalars, [True, False]) == 1.0
