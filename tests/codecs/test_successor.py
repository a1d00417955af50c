"""A version after another: whole by layer 1, and its coarse layer says what `residual` would."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.codecs.coarse import coarse_head, coarse_symbols
from mergepipe.codecs.floats import FORMATS
from mergepipe.codecs.residual import Residual, analyse
from mergepipe.codecs.successor import Anchor, Successor, coarse_after
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, DTYPES, F16, F32, DType
from mergepipe.errors import CodecError

WORKSPACE = Workspace()
GOLDEN = Path(__file__).parent / "golden"
NAME = bytes(range(32))
MODES = [BF16, F16, F32]


def as_bytes(values: np.ndarray, dtype: DType) -> bytes:
    if dtype is F16:
        return values.astype(np.float16).tobytes()
    single = values.astype(np.float32)
    return (
        single.tobytes() if dtype is F32 else (single.view(np.uint32) >> 16).astype("<u2").tobytes()
    )


def versions(dtype: DType, count: int, moved: float, seed: int = 0) -> tuple[bytes, bytes, bytes]:
    """What was trained from, yesterday's weights, and today's: by a share of the change on."""
    random = np.random.default_rng([seed, count])
    start = random.normal(0, 0.02, count)
    change = random.normal(0, 3e-4, count)
    change[count // 2 :] *= 0.05  # rows differ
    yesterday = start + change
    today = yesterday + moved * np.abs(change).mean() * random.normal(0, 1, count)
    return as_bytes(start, dtype), as_bytes(yesterday, dtype), as_bytes(today, dtype)


def layers_of(start: bytes, before: bytes, now: bytes, dtype: DType) -> list[bytes]:
    layers, _ = Successor().encode_after(now, before, Anchor(NAME, start), dtype, WORKSPACE)
    return [bytes(layer) for layer in layers]


def test_all_float_formats_are_covered() -> None:
    assert set(MODES) == set(FORMATS)


@pytest.mark.parametrize("dtype", MODES, ids=str)
@pytest.mark.parametrize("moved", [0.0, 0.02, 0.4, 1.0, 5.0])
def test_both_layers_say_what_they_should(dtype: DType, moved: float) -> None:
    for count in (1, 319, 320, 40_001):
        start, before, now = versions(dtype, count, moved)
        layers = layers_of(start, before, now, dtype)
        out = bytearray(len(now))
        Successor().decode_into(layers, before, memoryview(out), WORKSPACE)
        assert out == now
        under, own = (Residual().encode(raw, start, dtype, WORKSPACE)[0] for raw in (before, now))
        trits = coarse_after([layers[0], under], NAME, count, WORKSPACE)
        assert trits.tobytes() == coarse_symbols(own, count, WORKSPACE).tobytes()


def test_a_chain_of_coarse_layers() -> None:
    start, first, second = versions(BF16, 9000, 0.1)
    _, third, _ = versions(BF16, 9000, 0.1, seed=1)
    payloads = [
        layers_of(start, second, third, BF16)[0],
        layers_of(start, first, second, BF16)[0],
        Residual().encode(first, start, BF16, WORKSPACE)[0],
    ]
    trits = coarse_after(payloads, NAME, 9000, WORKSPACE)
    own = Residual().encode(third, start, BF16, WORKSPACE)[0]
    assert trits.tobytes() == coarse_symbols(own, 9000, WORKSPACE).tobytes()


def test_statistics_are_those_against_the_anchor() -> None:
    start, before, now = versions(BF16, 5000, 0.3)
    _, made = Successor().encode_after(now, before, Anchor(NAME, start), BF16, WORKSPACE)
    wanted = analyse(now, start, BF16, WORKSPACE)
    assert (made.energy, made.magnitude, made.large) == (
        wanted.energy,
        wanted.magnitude,
        wanted.large,
    )


def test_the_head_says_magnitude_and_threshold() -> None:
    start, before, now = versions(BF16, 5000, 0.3)
    layer = layers_of(start, before, now, BF16)[0]
    own = coarse_head(Residual().encode(now, start, BF16, WORKSPACE)[0])
    assert layer[2:10] == np.array([own.magnitude, own.threshold], "<f4").tobytes()


def test_takes_little_where_little_moved() -> None:
    start, before, now = versions(BF16, 200_000, 0.02)
    layers = layers_of(start, before, now, BF16)
    whole = Residual().encode(now, start, BF16, WORKSPACE)
    assert len(layers[0]) < 0.15 * len(whole[0])
    assert sum(map(len, layers)) < 0.5 * sum(map(len, whole))


def test_what_mostly_stayed_takes_a_small_part_of_what_two_coarse_layers_would() -> None:
    start, before, now = versions(BF16, 200_000, 0.02)
    ours = len(layers_of(start, before, now, BF16)[1])
    with_trits = sum(map(len, Residual().encode(now, before, BF16, WORKSPACE)))
    assert ours < 0.93 * with_trits


def test_another_anchor_is_refused() -> None:
    start, before, now = versions(BF16, 1000, 0.1)
    layer = layers_of(start, before, now, BF16)[0]
    under = Residual().encode(before, start, BF16, WORKSPACE)[0]
    with pytest.raises(CodecError, match="another block"):
        coarse_after([layer, under], bytes(32), 1000, WORKSPACE)


def test_no_reader_of_whole_layers_takes_it_for_one() -> None:
    start, before, now = versions(BF16, 1000, 0.1)
    with pytest.raises(CodecError, match=r"unknown coarse layout 2"):
        coarse_symbols(layers_of(start, before, now, BF16)[0], 1000, WORKSPACE)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_anything_comes_back(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(MODES))
    size = data.draw(st.integers(1, 700))
    start, before, now = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(3))
    layers = layers_of(start, before, now, dtype)
    out = bytearray(size)
    Successor().decode_into(layers, before, memoryview(out), WORKSPACE)
    assert out == now
    count = size // (dtype.bits // 8)
    under, own = (Residual().encode(raw, start, dtype, WORKSPACE)[0] for raw in (before, now))
    trits = coarse_after([layers[0], under], NAME, count, WORKSPACE)
    assert trits.tobytes() == coarse_symbols(own, count, WORKSPACE).tobytes()


def test_hostile_coarse_layers_are_an_error_or_trits() -> None:
    random = np.random.default_rng(3)
    start, before, now = versions(BF16, 3000, 0.3)
    layer = layers_of(start, before, now, BF16)[0]
    under = Residual().encode(before, start, BF16, WORKSPACE)[0]
    for _ in range(500):
        damaged = bytearray(layer)
        for where in random.integers(0, random.choice([len(layer), 80]), 2):
            damaged[where] ^= 1 << int(random.integers(8))
        cut = int(random.choice([len(layer), int(random.integers(0, len(layer)))]))
        try:
            trits = coarse_after([bytes(damaged[:cut]), under], NAME, 3000, WORKSPACE)
        except CodecError:
            continue
        assert trits.max() < 243


@pytest.mark.parametrize("dtype", MODES, ids=str)
def test_golden(dtype: DType) -> None:
    start, before, now = (
        (GOLDEN / f"{name}.bin").read_bytes() for name in ("anchor", "base", "block")
    )
    stem = f"successor-1-{dtype.name.lower()}-after"
    # `sparse`: with few trits in the exact layer, as is written since
    stored, dense = (
        [(GOLDEN / f"{stem}.{layer}.bin").read_bytes() for layer in names]
        for names in (("0", "1-sparse"), ("0", "1"))
    )
    for layers in (stored, dense):
        out = bytearray(len(now))
        Successor().decode_into(layers, before, memoryview(out), WORKSPACE)
        assert out == now
    count = len(now) // (DTYPES[dtype.name].bits // 8)
    under, own = (Residual().encode(raw, start, dtype, WORKSPACE)[0] for raw in (before, now))
    trits = coarse_after([stored[0], under], NAME, count, WORKSPACE)
    assert trits.tobytes() == coarse_symbols(own, count, WORKSPACE).tobytes()
    if dtype is not F32:  # zstd's own bytes may change with its version
        assert layers_of(start, before, now, dtype) == stored
