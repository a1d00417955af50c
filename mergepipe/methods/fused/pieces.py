"""Kernels on one piece (some thousand elements, in cache): bytes to float32 and back.

Every function works on the first `n` elements of scratch arrays that hold at least PIECE of them.
Nothing here may be reordered or contracted: the results equal those of `eager.operands` bit by bit.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_bits, as_float, carray, pointer, store_unaligned
from mergepipe.methods.terms import SIGNS, TRITS_PER_BYTE

# A multiple of five, so that coarse terms start on whole bytes; six float32 arrays of it fit in L1.
PIECE = 1280
SIGN_ROOM = PIECE + 16  # `expand` writes whole words of eight signs, five of which count

BF16, F16, F32 = 0, 1, 2
# The kind of a term; a dtype is added to the first two.
FULL, DELTA, COARSE, SAME = 0, 4, 8, 12

U = np.uint32
F = np.float32
SIGN_WORDS = (
    np.concatenate([SIGNS, np.zeros((256, 8 - TRITS_PER_BYTE), np.int8)], axis=1)
    .view(np.uint64)
    .reshape(256)
)
_TWO_TO_112 = np.float32(2.0**112)


@kernel()
def load(dtype: Any, address: Any, first: Any, n: Any, out: Any) -> None:
    """Fill out with elements [first, first + n) of the array at `address`, as float32."""
    if dtype == BF16:
        halves = carray(pointer(address + 2 * first), (n,), np.uint16)
        for i in range(n):
            out[i] = as_float(U(U(halves[i]) << U(16)))
    elif dtype == F16:
        halves = carray(pointer(address + 2 * first), (n,), np.uint16)
        for i in range(n):
            h = U(halves[i])
            # The exponent's bias differs by 112; multiplying also normalises subnormal numbers.
            r = as_bits(as_float(U((h & U(0x7FFF)) << U(13))) * _TWO_TO_112)
            r = U(r | U(0x7F800000)) if r >= U(0x47800000) else r  # infinity and NaN
            out[i] = as_float(U(r | ((h & U(0x8000)) << U(16))))
    else:
        words = carray(pointer(address + 4 * first), (n,), np.float32)
        for i in range(n):
            out[i] = words[i]


@kernel()
def expand(address: Any, skip: Any, first: Any, n: Any, signs: Any) -> Any:
    """Signs of elements [first, first + n) of a coarse term; returns where in `signs` they begin.

    `signs` is int8 and holds PIECE + 16: whole words of eight are written, five of them count.
    """
    place = skip + first
    offset = place % 5
    count = (offset + n + 4) // 5
    packed = carray(pointer(address + place // 5), (count,), np.uint8)
    target = signs.ctypes.data
    for j in range(count):
        store_unaligned(target + 5 * j, SIGN_WORDS[packed[j]])
    return offset


@kernel()
def store(dtype: Any, values: Any, n: Any, address: Any, first: Any) -> None:
    """Elements [first, first + n) of the array at `address` = values, to nearest even."""
    if dtype == BF16:
        halves = carray(pointer(address + 2 * first), (n,), np.uint16)
        for i in range(n):
            u = as_bits(values[i])
            r = U(u + U(0x7FFF) + (U(u >> U(16)) & U(1))) >> U(16)
            halves[i] = np.uint16(r if U(u & U(0x7FFFFFFF)) <= U(0x7F800000) else U(0x7FC0))
    elif dtype == F16:
        halves = carray(pointer(address + 2 * first), (n,), np.uint16)
        for i in range(n):
            u = as_bits(values[i])
            a = U(u & U(0x7FFFFFFF))
            # Adding 0.5 lets the float unit round a subnormal result at its last place.
            small = U(as_bits(as_float(a) + F(0.5)) - U(0x3F000000))
            # Exponent less 112, plus just under half a unit, plus one if the last bit is odd.
            normal = U(a + U(0xC8000FFF) + (U(a >> U(13)) & U(1))) >> U(13)
            r = small if a < U(0x38800000) else normal
            r = U(0x7C00) if a >= U(0x47800000) else r
            r = U(r | (U(u >> U(16)) & U(0x8000)))
            halves[i] = np.uint16(U(0x7E00) if a > U(0x7F800000) else r)
    else:
        words = carray(pointer(address + 4 * first), (n,), np.float32)
        for i in range(n):
            v = values[i]
            words[i] = v if v == v else F(np.nan)


@kernel()
def load_delta(
    kind: Any,
    address: Any,
    skip: Any,
    level: Any,
    threshold: Any,
    first: Any,
    n: Any,
    base: Any,
    signs: Any,
    out: Any,
) -> None:
    """Fill out with d of elements [first, first + n) of one term (any kind but SAME), trimmed."""
    if kind == COARSE:
        offset = expand(address, skip, first, n, signs)
        own = signs[offset : offset + n]
        for i in range(n):
            out[i] = F(own[i]) * level
    elif kind >= DELTA:
        load(kind - DELTA, address, first, n, out)
        if threshold > F(0):
            for i in range(n):
                out[i] = F(0) if abs(out[i]) < threshold else out[i]
    else:
        load(kind, address, first, n, out)
        for i in range(n):
            d = out[i] - base[i]
            out[i] = F(0) if abs(d) < threshold else d
