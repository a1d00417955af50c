"""What a block takes as its distance from a base, by counting: nothing is coded, no table made.

A weight's bits as an integer that grows with its value are so many steps from the base's. How often
each distance occurs among weights of one exponent says what `residual` takes to within a few
percent (docs/design/storing-fine-tunes.md), for a tenth of the time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mergepipe.codecs.exact import encode_low
from mergepipe.codecs.floats import float_format
from mergepipe.codecs.pieces import octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.weights import weights_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_bits, on_stack
from mergepipe.kernels.signatures import int64, read_only, uint16, uint32

_TILE = 2048
_ROWS = 32  # exponents, of which a tensor's weights have fewer; others share
_ROW = 128  # distances up to 15, then eight ranges an octave, up to 2^16
# From a float32's upper 12 bits to a range's symbol (exact_kernels.py).
_RANGES = np.uint32(((127 + 4) << 3) - 17)
# What every block takes: both heads, shares, states, and half a byte for each symbol of the tables.
_FIXED_BYTES = 600
_SYMBOL_BITS = 4

_READ_U16 = read_only(uint16[::1])
_U32 = uint32[::1]


@kernel(int64(_READ_U16, _READ_U16, int64, _U32))
def count_distances(tuned: Any, base: Any, mantissa_bits: Any, counts: Any) -> Any:
    """Count distances by the base's exponent; returns the bits of signs and places in ranges.

    counts  uint32[2 * _ROWS * _ROW], added to: two halves to be summed
    """
    places = on_stack(_TILE, np.uint16)
    bits = np.int64(0)
    width = np.uint32(mantissa_bits)
    second = np.int64(_ROWS * _ROW)
    for start in range(0, tuned.size, _TILE):
        stop = min(start + _TILE, tuned.size)
        x = tuned[start:stop]
        b = base[start:stop]
        for i in range(x.size):
            x_size = np.int32(x[i] & np.uint16(0x7FFF))
            b_size = np.int32(b[i] & np.uint16(0x7FFF))
            x_step = np.int32(-x_size) if x[i] >> np.uint16(15) else x_size
            b_step = np.int32(-b_size) if b[i] >> np.uint16(15) else b_size
            distance = np.int32(abs(np.int32(x_step - b_step)))
            upper = np.uint32(as_bits(np.float32(distance)))
            ranged = np.uint32(np.uint32(upper >> np.uint32(20)) - _RANGES)
            symbol = ranged if distance >= np.int32(16) else np.uint32(distance)
            row = np.uint32(np.uint32(np.uint32(b_size) >> width) & np.uint32(_ROWS - 1))
            places[i] = np.uint16(np.uint32(np.uint32(row << np.uint32(7)) | symbol))
            octave = np.int32(np.uint32(upper >> np.uint32(23)))
            more = max(np.int32(octave - np.int32(127 + 3)), np.int32(0))
            bits += np.int64(np.int32(more + np.int32(distance > 0)))
        even = x.size // 2 * 2
        # Two tables in turn: a common symbol would have every count wait for the one before.
        for i in range(0, even, 2):
            counts[places[i]] += np.uint32(1)
            counts[second + np.int64(places[i + 1])] += np.uint32(1)
        if even < x.size:
            counts[places[even]] += np.uint32(1)
    return bits


def residual_bytes(
    samples: Sequence[tuple[Buffer, Buffer]], dtype: DType, workspace: Workspace
) -> int:
    """About what `residual` takes for pieces of a block and its base, together.

    bf16, fp16 and float32. No piece is empty.
    """
    format_ = float_format(dtype)
    halves = np.zeros((2, _ROWS * _ROW), np.uint32)
    flat = halves.reshape(-1)
    bits = kept = 0
    for raw, base in samples:
        weights = weights_of(octets(raw), octets(base), format_, workspace)
        bits += count_distances(weights.tuned, weights.base, format_.mantissa_bits, flat)
        kept += sum(map(len, encode_low(weights))) + len(weights.tail)
    counts = halves.sum(0, dtype=np.uint32).reshape(_ROWS, _ROW)
    rows = counts.sum(1, dtype=np.int64)
    held, sums = counts[counts > 0], rows[rows > 0]
    entropy = float(sums @ np.log2(sums) - held @ np.log2(held))
    return _FIXED_BYTES + int((entropy + bits + _SYMBOL_BITS * held.size) / 8) + kept
