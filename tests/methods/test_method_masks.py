"""DARE's masks: the documented generator, its statistics, and what the rescale makes of it."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.dtypes import F32
from mergepipe.methods import Delta, ExpertScalars, Full, Scalars, Unit, find, merge, tensor_key
from mergepipe.methods.randomness import element_number, keep_limit, mask_keys
from tests.methods.merge_reference import mask_numbers

N = 200_000
ONES = Delta(np.ones(N, np.float32))
BASE = Full(np.zeros(N, np.float32), F32)


def thinned(density, count=1, expert=0, seed=0, start=0, key=7, backend="fused"):
    """1 where expert number `expert` of `count` kept the element."""
    own = [ExpertScalars(weight=0.0, density=density) for _ in range(count)]
    own[expert] = replace(own[expert], weight=1.0)
    unit = Unit(start, N, BASE, (ONES,) * count, Scalars(tuple(own)), F32, seed, key)
    return merge(find("dare_linear"), unit, backend=backend).view(np.float32)


@pytest.mark.parametrize("start", [0, 2**32 - 1000, 5 * 2**32 + 17])
def test_both_implementations_are_the_documented_generator(start):
    expected = mask_numbers(3, 9, 1, start + np.arange(N)) < 0.4 * 2**32
    for backend in ("fused", "torch"):
        kept = thinned(0.4, 2, 1, seed=3, start=start, key=9, backend=backend)
        assert np.array_equal(kept > 0, expected)
    keys = mask_keys(3, 9, 1)
    numbers = mask_numbers(3, 9, 1, start + np.arange(2000))
    assert [element_number(keys, start + i) for i in range(2000)] == numbers.tolist()


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
def test_the_kept_share_is_binomial(density):
    deviations = []
    for seed in range(10):
        kept = thinned(density, seed=seed).sum()
        deviations.append((kept - density * N) / np.sqrt(N * density * (1 - density)))
    assert np.abs(deviations).max() < 4
    assert 0.3 < np.sqrt(np.mean(np.square(deviations))) < 2


def test_numbers_are_uniform_and_neighbours_independent():
    numbers = mask_numbers(0, 0, 0, np.arange(1 << 20)).astype(np.int64)
    counts = np.bincount(numbers >> 24, minlength=256)
    chi = ((counts - 4096.0) ** 2 / 4096).sum()
    assert abs(chi - 255) < 5 * np.sqrt(2 * 255)
    low = np.bincount(numbers & 255, minlength=256)
    assert abs(((low - 4096.0) ** 2 / 4096).sum() - 255) < 5 * np.sqrt(2 * 255)
    unit = numbers / 2**32 - 0.5
    for lag in (1, 2, 3, 5, 16, 64, 1024, 4096):
        assert abs(np.mean(unit[lag:] * unit[:-lag]) * 12) < 5 / np.sqrt(len(unit))


def test_masks_of_experts_seeds_and_tensors_are_independent():
    first = mask_numbers(0, 1, 0, np.arange(N)) / 2**32 - 0.5
    for other in ((0, 1, 1), (1, 1, 0), (0, 2, 0)):
        second = mask_numbers(*other, np.arange(N)) / 2**32 - 0.5
        for shift in (0, 1, 2, 7):
            product = np.mean(first[shift:] * second[: N - shift]) * 12
            assert abs(product) < 5 / np.sqrt(N)


def test_the_rescale_makes_it_unbiased():
    method = find("dare_linear")
    settings = method.settings({"density": 0.2, "normalize": False}, [{}])
    unit = Unit(0, N, BASE, (ONES,), method.resolve(settings), F32, 5, 5)
    merged = merge(method, unit).view(np.float32)
    assert set(np.unique(merged)) == {0.0, 5.0}
    assert abs(merged.mean() - 1) < 4 * np.sqrt(0.8 / 0.2 / N)


def test_densities_at_the_ends():
    assert thinned(1.0).all()
    assert not thinned(0.0).any()
    assert keep_limit(1.0) == 2**32
    assert keep_limit(0.25) == 2**30


def test_tensor_keys_are_fixed_for_ever():
    assert tensor_key("model.embed_tokens.weight") == 17744852841324204394
    assert tensor_key("a") != tensor_key("b")
