"""What the bytes of a tensor mean as numbers: every dtype of safetensors, decoded exactly.

For statistics, diffs and merging. Nothing here rounds, but 64-bit integers above 2^53.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from mergepipe.dtypes import DType, Kind
from mergepipe.errors import MalformedFile
from mergepipe.ids import Buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values: TypeAlias = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.complex128]

_NUMPY = {
    "BOOL": "<u1", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

# exponent bits, mantissa bits, bias. OCP OFP8 v1.0 (E4M3, E5M2), OCP MX v1.0 (E8M0, F6, F4), and
# Noune et al. 2022, "8-bit Numerical Formats for Deep Neural Networks" (FNUZ: finite, no -0).
_SMALL = {
    "F8_E4M3": (4, 3, 7),
    "F8_E5M2": (5, 2, 15),
    "F8_E4M3FNUZ": (4, 3, 8),
    "F8_E5M2FNUZ": (5, 2, 16),
    "F6_E2M3": (2, 3, 1),
    "F6_E3M2": (3, 2, 3),
    "F4": (2, 1, 1),
}


def decode(dtype: DType, raw: Buffer, skip_bits: int | None = None) -> "Values":
    """The elements that `raw` (little-endian) holds, as one dimension.

    float32 for floats of up to 32 bits, complex128 for complex, float64 for all others; BOOL gives
    0 and 1. The array may be a read-only view of `raw`. Raises MalformedFile unless `raw` holds
    whole elements.

    Elements of less than a byte are packed without gaps, the first in the lowest bits, as torch
    packs `float4_e2m1fn_x2`; F6 goes on in that way, four elements in three bytes. safetensors
    prescribes no order. Blocks of F6 can begin and end inside an element: given `skip_bits` (0, 2
    or 4), that many bits at the start, and those at the end that make no whole element, are left
    out.
    """
    import numpy as np

    length = memoryview(raw).nbytes
    if skip_bits is None and length * 8 % dtype.bits:
        raise MalformedFile(f"{length} bytes do not hold whole elements of {dtype}")
    if not length:
        return np.empty(0, _result(dtype))
    if dtype.name in _NUMPY:
        numbers = np.frombuffer(raw, _NUMPY[dtype.name])
        if dtype.kind is Kind.BOOLEAN:
            numbers = numbers != 0
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one: no news
            return numbers.astype(_result(dtype), copy=False)
    if dtype.name == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    codes = np.frombuffer(raw, np.uint8)
    if dtype.bits == 4:
        codes = np.stack((codes & 15, codes >> 4), axis=-1).reshape(-1)
    elif dtype.bits == 6:
        codes = _sixes(codes, skip_bits or 0)
    values: NDArray[np.float32] = _table(dtype.name)[codes]
    return values


# Exponent bits that are all set in infinities and NaN, and in nothing else.
_EXPONENT = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF << 52}


def count_nonfinite(dtype: DType, raw: Buffer) -> int:
    """How many elements of `raw` (whole ones) are infinite or NaN; a complex one counts once.

    Looks at bits and computes nothing, so that a signalling NaN raises no alarm on the way.
    """
    import numpy as np

    if dtype.name == "C64":
        codes = np.frombuffer(raw, "<u4") & np.uint32(_EXPONENT["F32"])
        return int(np.count_nonzero((codes == _EXPONENT["F32"]).reshape(-1, 2).any(axis=1)))
    if dtype.name in _EXPONENT:
        kind = np.dtype(f"<u{dtype.bits // 8}")
        bits = np.frombuffer(raw, kind)
        mask = kind.type(_EXPONENT[dtype.name])
        return int(np.count_nonzero((bits & mask) == mask))
    if dtype.bits == 8 and dtype.kind is Kind.FLOAT:
        return int(np.count_nonzero(_infinite(dtype.name)[np.frombuffer(raw, np.uint8)]))
    return 0  # integers, and floats of 6 and 4 bits, which have finite values only


SAMPLED = 16_384
"""Elements of a block of which `estimated_square` looks at, at most twice as many."""


def estimated_square(dtype: DType, raw: Buffer) -> float:
    """The sum of squares of the finite elements of `raw`, by a part of them at even distances.

    Exact for up to `SAMPLED` elements. 0 for what is no float, and for floats below a byte; NaN if
    none is finite. Two blocks of one size are looked at in the same places.
    """
    import numpy as np

    if dtype.kind is not Kind.FLOAT or dtype.bits < 8:
        return 0.0
    codes = np.frombuffer(raw, f"<u{dtype.bits // 8}")
    step = max(1, len(codes) // SAMPLED)
    values = decode(dtype, np.ascontiguousarray(codes[::step]).data)
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return math.nan if len(values) else 0.0
    with np.errstate(over="ignore"):  # of float64 a square may be infinite
        return float(np.square(finite).sum()) * len(codes) / len(values)


@cache
def _infinite(name: str) -> "NDArray[np.bool_]":
    """For every code of a float of 8 bits, whether it is infinite or NaN."""
    import numpy as np

    return ~np.isfinite(_table(name))


def _result(dtype: DType) -> str:
    if dtype.kind is Kind.COMPLEX:
        return "<c16"
    return "<f4" if dtype.kind is Kind.FLOAT and dtype.bits <= 32 else "<f8"


def _sixes(packed: Any, skip_bits: int) -> "NDArray[np.uint8]":
    """6-bit codes, each in a byte of its own."""
    import numpy as np

    bits = np.unpackbits(packed, bitorder="little")[skip_bits:]
    whole = bits[: len(bits) // 6 * 6].reshape(-1, 6)
    return np.packbits(whole, axis=-1, bitorder="little").reshape(-1)


@cache
def _table(name: str) -> "NDArray[np.float32]":
    """The value of every code of a float of 8 bits or fewer; each is exact in float32."""
    import numpy as np

    if name == "F8_E8M0":  # a power of two, no sign, no zero
        table = np.ldexp(1.0, np.arange(256) - 127)
        table[255] = np.nan
        return _frozen(table)
    exponent_bits, mantissa_bits, bias = _SMALL[name]
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = codes & (1 << mantissa_bits) - 1
    hidden = np.where(exponent > 0, 1 << mantissa_bits, 0)
    size = np.ldexp(mantissa + hidden.astype(float), np.maximum(exponent, 1) - bias - mantissa_bits)
    table = np.where(codes >> (exponent_bits + mantissa_bits), -size, size)
    last = exponent == (1 << exponent_bits) - 1
    if name == "F8_E5M2":  # the only one with infinities, as IEEE 754 has them
        table[last] = np.where(mantissa[last] > 0, np.nan, np.copysign(np.inf, table[last]))
    elif name == "F8_E4M3":
        table[last & (mantissa == 7)] = np.nan
    elif name.endswith("FNUZ"):
        table[128] = np.nan  # where others have -0
    return _frozen(table)


def _frozen(table: "NDArray[np.float64]") -> "NDArray[np.float32]":
    import numpy as np

    single = table.astype(np.float32)
    single.flags.writeable = False
    return single
