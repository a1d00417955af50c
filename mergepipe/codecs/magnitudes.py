"""Exact counts of |x - base|: the few changes whose size takes more than the survey's 16 bits.

The survey (survey.py) counts changes by the upper 16 bits of their size as float32. In a fine-tune
of 16-bit floats 1 to 4% of the changes have more bits, namely where weight and base have
different exponents. They are listed here, so that a trim threshold over a tensor is exact.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, types, uint16, uint32

from mergepipe.codecs.floats import bf16_value, f16_value, float_format
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.scratch import elements, octets, scratch
from mergepipe.dtypes import DType
from mergepipe.jit import kernel

_TILE = 4096
_GROUP = 64
_FINITE = 0x7F800000
_U32 = types.Array(uint32, 1, "C")
_READ_U16 = types.Array(uint16, 1, "C", readonly=True)


@kernel(int64(_READ_U16, _READ_U16, int64, _U32))
def _gather(tuned: Any, base: Any, mantissa_bits: Any, out: Any) -> Any:
    """Bits of every |change| that its upper 16 bits do not hold; returns how many."""
    changes = np.empty(_TILE, np.uint32)
    real = changes.view(np.float32)
    found = 0
    for start in range(0, tuned.size, _TILE):
        size = min(_TILE, tuned.size - start)
        x, b = tuned[start : start + size], base[start : start + size]
        if mantissa_bits == 7:
            for i in range(size):
                real[i] = bf16_value(x[i]) - bf16_value(b[i])
        else:
            for i in range(size):
                real[i] = f16_value(x[i]) - f16_value(b[i])
        if size < _TILE:
            changes[size:] = 0
        for group in range(0, size, _GROUP):
            piece = changes[group : group + _GROUP]
            any_long = np.uint32(0)  # most groups have none, and this loop is a few vector ORs
            for i in range(_GROUP):
                any_long |= piece[i]
            if any_long & np.uint32(0xFFFF):
                for i in range(_GROUP):
                    bits = piece[i] & np.uint32(0x7FFFFFFF)
                    if bits & np.uint32(0xFFFF) and bits < np.uint32(_FINITE):
                        out[found] = bits
                        found += 1
    return found


def long_magnitudes(
    raw: Buffer, base: Buffer, dtype: DType
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Distinct |x - base| with more than 16 significant bits (as float32 bits, rising), and counts.

    For dtypes of 16 bits. Infinite and NaN changes count as none, as in the survey.
    """
    mantissa_bits = float_format(dtype).mantissa_bits
    x, b = octets(raw), octets(base)
    whole = x.size // 2 * 2
    tuned = elements("tuned", x[:whole], np.uint16)
    under = elements("base", b[:whole], np.uint16)
    out = scratch("long magnitudes", tuned.size, np.uint32)
    found = np.sort(out[: _gather(tuned, under, mantissa_bits, out)])
    starts = np.flatnonzero(np.diff(found, prepend=np.uint32(0)))
    return found[starts], np.diff(starts, append=found.size)
