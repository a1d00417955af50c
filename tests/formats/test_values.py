"""Decoding bytes to numbers, against torch and numpy."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.dtypes import DTYPES
from mergepipe.errors import MalformedFile
from mergepipe.values import count_nonfinite, decode

TORCH = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
F4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]  # OCP MX v1.0, table 5


def bits(values: np.ndarray) -> bytes:
    """The bits of `values`, with all NaNs alike."""
    return np.where(np.isnan(values), np.float32(np.nan), values).tobytes()


@pytest.mark.parametrize("name", TORCH)
def test_every_code_is_torch_s(name: str) -> None:
    dtype = DTYPES[name]
    raw = np.arange(1 << dtype.bits).astype(f"<u{dtype.bits // 8}").tobytes()
    expected = torch.frombuffer(bytearray(raw), dtype=TORCH[name]).to(torch.float32).numpy()
    assert decode(dtype, raw).dtype == np.float32
    assert bits(decode(dtype, raw)) == bits(expected)


def test_four_bits() -> None:
    """In the order of torch/headeronly/util/Float4_e2m1fn_x2.h: the first is in the low bits."""
    assert decode(DTYPES["F4"], bytes([0x10, 0x32, 0x54, 0x76])).tolist() == F4
    assert decode(DTYPES["F4"], bytes([0x98, 0xBA, 0xDC, 0xFE])).tolist() == [-x for x in F4]


@pytest.mark.parametrize(
    ("name", "step", "largest", "one"),
    [("F6_E2M3", 0.125, 7.5, 0b001000), ("F6_E3M2", 0.0625, 28.0, 0b001100)],
)  # fmt: skip
def test_six_bits(name: str, step: float, largest: float, one: int) -> None:
    """OCP MX v1.0, table 4: the smallest subnormal, the largest normal, and the order between."""
    packed = sum(code << 6 * at for at, code in enumerate(range(64))).to_bytes(48, "little")
    table = decode(DTYPES[name], packed)
    assert len(table) == 64
    assert (table[1], table[31], table[one]) == (step, largest, 1.0)
    assert np.all(np.diff(table[:32]) > 0)
    assert np.array_equal(table[32:], -table[:32])
    assert np.signbit(table[32])


@given(st.binary(min_size=6, max_size=48).map(lambda raw: raw[: len(raw) // 3 * 3]))
def test_six_bits_from_inside_an_element(raw: bytes) -> None:
    dtype = DTYPES["F6_E3M2"]
    whole = decode(dtype, raw)
    for cut, first, skip in ((1, 2, 4), (2, 3, 2), (3, 4, 0)):
        assert np.array_equal(decode(dtype, raw[cut:], skip), whole[first:])
    for cut in (1, 2, 3):
        left = decode(dtype, raw[:-cut], 0)
        assert np.array_equal(left, whole[: (len(raw) - cut) * 8 // 6])


@pytest.mark.parametrize(
    "name", ["U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F32", "F64", "C64", "BOOL"]
)
def test_numpy_s_own(name: str) -> None:
    dtype = DTYPES[name]
    if dtype.kind == "complex":
        numbers = np.array([1 + 2j, -0.5j, 0], np.complex64)
    elif dtype.kind == "float":
        numbers = np.array([1.5, -0.0, np.inf], f"<f{dtype.bits // 8}")
    elif dtype.kind == "boolean":
        numbers = np.array([True, False, True])
    else:
        kind = np.dtype(f"<{'i' if dtype.kind == 'integer' else 'u'}{dtype.bits // 8}")
        numbers = np.array([np.iinfo(kind).min, 1, np.iinfo(kind).max], kind)
    wide: np.dtype = np.dtype(np.float64)
    if dtype.kind == "complex":
        wide = np.dtype(np.complex128)
    elif dtype.kind == "float":
        wide = numbers.dtype
    for raw in (numbers.tobytes(), bytearray(numbers.tobytes()), memoryview(numbers.tobytes())):
        assert decode(dtype, raw).dtype == wide
        assert decode(dtype, raw).tolist() == numbers.astype(wide).tolist()


@pytest.mark.parametrize("name", DTYPES)
def test_lengths(name: str) -> None:
    dtype = DTYPES[name]
    assert decode(dtype, b"").shape == (0,)
    assert decode(dtype, bytes(48)).shape == (48 * 8 // dtype.bits,)
    if 8 % dtype.bits:
        with pytest.raises(MalformedFile, match=f"of {name}"):
            decode(dtype, bytes(49))


def test_numpy_is_loaded_only_by_decoding() -> None:
    code = (
        "import sys, mergepipe.values, mergepipe.names, mergepipe.formats.safetensors\n"
        "import mergepipe.formats.tree, mergepipe.formats.huggingface, mergepipe.formats.writing\n"
        "print({'numpy', 'torch', 'numba', 'pathspec', 'safetensors'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", DTYPES)
def test_counts_of_what_is_not_finite(name: str) -> None:
    dtype = DTYPES[name]
    raw = np.random.default_rng(3).integers(0, 256, 49152, np.uint8)
    raw[:4096] |= 0x7F  # infinities and NaN of every kind among them
    with np.errstate(all="raise"):
        count = count_nonfinite(dtype, raw.tobytes())
    assert count == np.count_nonzero(~np.isfinite(decode(dtype, raw.tobytes())))
    assert count_nonfinite(dtype, b"") == 0
