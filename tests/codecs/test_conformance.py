"""One suite that every codec passes: exact, deterministic, and unharmed by hostile bytes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.codecs.protocol import Codec
from mergepipe.codecs.registry import NAMES, codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DTYPES, DType
from mergepipe.errors import CodecError

WORKSPACE = Workspace()

LENGTHS = [1, 2, 3, 4, 7, 8, 9, 10, 11, 31, 64, 79, 80, 81, 250, 1023, 4096, 10_007, 65_536]
KINDS = ["noise", "weights", "equal", "sparse", "constant", "special"]


def block_and_base(dtype: DType, length: int, kind: str, seed: int = 0) -> tuple[bytes, bytes]:
    """A block of `length` bytes and the block it leans on."""
    random = np.random.default_rng([seed, length, dtype.bits, KINDS.index(kind)])
    if kind == "noise":
        return random.bytes(length), random.bytes(length)
    if kind == "constant":
        return b"\x07" * length, b"\x06" * length
    n = length // 2 + 8
    if kind == "special":  # zeros of both signs, infinities, NaNs with payloads, denormals
        values = np.array([0, 0x8000, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 1, 0x8001, 0x7C00, 0x3F80])
        pair = random.choice(values.astype(np.uint16), (2, n))
        return pair[0].tobytes()[:length], pair[1].tobytes()[:length]
    base = random.normal(0, 0.02, n)
    tuned = base + random.normal(0, 2e-4, n) * (random.random(n) < (0.3 if kind == "sparse" else 1))
    if kind == "equal":
        tuned = base

    def to_bytes(x: np.ndarray) -> bytes:
        if dtype.bits == 64:
            return x.tobytes()[:length]
        if dtype.name == "F16":
            return x.astype(np.float16).tobytes()[:length]
        single = x.astype(np.float32)
        if dtype.bits == 32:
            return single.tobytes()[:length]
        return (single.view(np.uint32) >> 16).astype(np.uint16).tobytes()[:length]

    return to_bytes(tuned), to_bytes(base)


def decode(codec: Codec, layers: list[bytes], base: bytes | None, length: int) -> bytes:
    out = bytearray(length)
    codec.decode_into(layers, base, memoryview(out), WORKSPACE)
    assert len(out) == length
    return bytes(out)


def encode(codec: Codec, raw: bytes, base: bytes, dtype: DType) -> list[bytes]:
    layers = codec.encode(raw, base if codec.needs_base else None, dtype, WORKSPACE)
    assert len(layers) == codec.layers
    return [bytes(layer) for layer in layers]


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    return codec_named(request.param)


def supported(codec: Codec) -> list[DType]:
    return [dtype for dtype in DTYPES.values() if codec.supports(dtype)]


def test_is_a_codec(codec: Codec) -> None:
    assert isinstance(codec, Codec)
    assert supported(codec)


def test_round_trip(codec: Codec) -> None:
    for dtype in supported(codec):
        for kind in KINDS:
            for length in LENGTHS:
                raw, base = block_and_base(dtype, length, kind)
                layers = encode(codec, raw, base, dtype)
                back = decode(codec, layers, base if codec.needs_base else None, length)
                assert back == raw, (dtype, kind, length)


def test_round_trip_of_a_full_block(codec: Codec) -> None:
    dtype = supported(codec)[0]
    raw, base = block_and_base(dtype, 1 << 20, "weights")
    layers = encode(codec, raw, base, dtype)
    assert decode(codec, layers, base if codec.needs_base else None, 1 << 20) == raw
    assert sum(map(len, layers)) <= (1 << 20) + 64


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip_of_anything(data: st.DataObject) -> None:
    codec = codec_named(data.draw(st.sampled_from(NAMES)))
    dtype = data.draw(st.sampled_from(supported(codec)))
    raw = data.draw(st.binary(min_size=1, max_size=300))
    base = data.draw(st.binary(min_size=len(raw), max_size=len(raw)))
    layers = encode(codec, raw, base, dtype)
    assert decode(codec, layers, base if codec.needs_base else None, len(raw)) == raw


def test_misaligned_and_read_only_buffers(codec: Codec) -> None:
    for dtype in supported(codec):
        for shift in (1, 3):
            raw, base = block_and_base(dtype, 5000, "weights")
            views = [memoryview(bytes(shift) + x)[shift:] for x in (raw, base)]
            given_base = views[1] if codec.needs_base else None
            layers = [
                bytes(layer) for layer in codec.encode(views[0], given_base, dtype, WORKSPACE)
            ]
            assert layers == encode(codec, raw, base, dtype)
            shifted = [memoryview(bytes(shift) + layer)[shift:] for layer in layers]
            out = bytearray(5000 + shift)
            codec.decode_into(shifted, given_base, memoryview(out)[shift:], WORKSPACE)
            assert out[shift:] == raw


def test_deterministic_over_runs_and_threads(codec: Codec) -> None:
    jobs = [
        (*block_and_base(dtype, length, "weights"), dtype)
        for dtype in supported(codec)[:4]
        for length in (4096, 70_001)
    ]
    once = [encode(codec, *job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda job: encode(codec, *job), jobs)) == once


def hostile(layers: list[bytes], seed: int) -> Iterator[list[bytes]]:
    """Truncations, extensions, bit flips, runs of noise and pure noise, in every layer."""
    random = np.random.default_rng(seed)
    for at, layer in enumerate(layers):

        def with_layer(changed: bytes, at: int = at) -> list[bytes]:
            return [*layers[:at], changed, *layers[at + 1 :]]

        cuts = {0, 1, 2, 3, 4, 8, len(layer) // 2, len(layer) - 1, *random.integers(0, 64, 8)}
        for cut in sorted(c for c in cuts if c < len(layer)):
            yield with_layer(layer[: int(cut)])
        yield with_layer(layer + b"\0")
        yield with_layer(layer + layer)
        for _ in range(60):
            changed = bytearray(layer)
            # Headers are where the damage is done, so half of the flips land there.
            for where in random.integers(0, random.choice([len(layer), min(len(layer), 80)]), 2):
                changed[where] ^= 1 << int(random.integers(8))
            yield with_layer(bytes(changed))
        for _ in range(10):
            start = int(random.integers(0, len(layer)))
            noise = random.bytes(min(40, len(layer) - start))
            yield with_layer(layer[:start] + noise + layer[start + len(noise) :])
        for length in (1, 5, 40, len(layer)):
            yield with_layer(random.bytes(length))
    yield layers[:-1]
    yield [*layers, b"x"]


def test_hostile_bytes_are_an_error_or_a_block(codec: Codec) -> None:
    for dtype in supported(codec)[:6]:
        for kind, length in (("weights", 30_000), ("sparse", 3001), ("noise", 200)):
            raw, base = block_and_base(dtype, length, kind)
            given_base = base if codec.needs_base else None
            for damaged in hostile(encode(codec, raw, base, dtype), length):
                try:
                    decode(codec, damaged, given_base, length)
                except CodecError:
                    continue


def test_wrong_length_is_an_error(codec: Codec) -> None:
    dtype = supported(codec)[0]
    raw, base = block_and_base(dtype, 6000, "weights")
    layers = encode(codec, raw, base, dtype)
    for length in (1, 2, 5998, 5999, 6001, 6002, 60_000):
        with pytest.raises(CodecError):
            decode(codec, layers, (base * 10)[:length] if codec.needs_base else None, length)
