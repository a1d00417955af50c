"""The first pass over a block and its base: what changed, by how much, and which changes are large.

A change is `x - base` in float32. Its key is the upper 16 bits of its absolute value as float32: 15
bits that order changes by size, two of which are equal only within 1/128 of each other. The
difference of two bf16 values of one exponent fits in its key exactly; a change with more bits than
that is counted apart, in the upper half of the counts. Infinite and NaN changes count as none.
"""

import struct
from typing import Any

import numpy as np

from mergepipe.codecs.floats import bf16_value, f16_value
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_bits, as_float, on_stack
from mergepipe.kernels.signatures import float64, int64, read_only, uint8, uint16, uint32

KEYS = 1 << 15
COUNTS = 2 * KEYS + 16
TILE = 5120
_GROUP = 16

_U8 = uint8[::1]
_U16 = uint16[::1]
_U32 = uint32[::1]
_F64 = float64[::1]
_READ_U16 = read_only(uint16[::1])
_READ_U32 = read_only(uint32[::1])
_FINITE = np.uint32(0x7F800000)
_SIZE = np.uint32(0x7FFFFFFF)


@kernel(inline=True)
def _finite_bits(change: Any) -> Any:
    """The bits of a change, 0 of one that is infinite or NaN."""
    bits: Any = as_bits(change)
    return bits if np.uint32(bits & _SIZE) < _FINITE else np.uint32(0)


@kernel()
def changes_of_halves(tuned: Any, base: Any, mantissa_bits: Any, out: Any) -> None:
    """Bits of float32 `tuned - base`, inside a kernel."""
    if mantissa_bits == 7:
        for i in range(out.size):
            out[i] = _finite_bits(np.float32(bf16_value(tuned[i]) - bf16_value(base[i])))
    else:
        for i in range(out.size):
            out[i] = _finite_bits(np.float32(f16_value(tuned[i]) - f16_value(base[i])))


@kernel()
def changes_of_singles(tuned: Any, base: Any, out: Any) -> None:
    """`changes_of_halves` for float32."""
    for i in range(out.size):
        out[i] = _finite_bits(np.float32(as_float(tuned[i]) - as_float(base[i])))


@kernel()
def _count(changes: Any, uppers: Any, counts: Any) -> Any:
    """Count a tile's changes by key; returns the bits of the largest."""
    largest = np.int32(0)
    for i in range(changes.size):
        largest = max(largest, np.int32(changes[i] & _SIZE))
    for i in range(uppers.size):
        bits = changes[i]
        uppers[i] = bits >> np.uint32(16)
        more = np.uint32(KEYS) if bits & np.uint32(0xFFFF) else np.uint32(0)
        key = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(KEYS - 1)) | more
        changes[i] = key if bits else np.uint32(np.uint32(i) & np.uint32(15)) | np.uint32(2 * KEYS)
    for i in range(uppers.size):
        counts[changes[i]] += np.uint32(1)
    return largest


@kernel()
def _gather(changes: Any, longs: Any, found: Any) -> Any:
    """Append the sizes of inexact changes to the `found` that are there; returns how many now."""
    whole = changes.size // _GROUP * _GROUP
    for start in range(0, whole, _GROUP):
        merged = np.uint32(0)  # most groups have none, which one vector OR says
        for i in range(_GROUP):
            merged |= changes[start + i]
        if merged & np.uint32(0xFFFF):
            for i in range(_GROUP):  # without a branch: where there is one is anybody's guess
                longs[found] = changes[start + i] & _SIZE
                found += np.int64((changes[start + i] & np.uint32(0xFFFF)) != 0)
    for i in range(whole, changes.size):
        longs[found] = changes[i] & _SIZE
        found += np.int64((changes[i] & np.uint32(0xFFFF)) != 0)
    return found


@kernel(int64(_READ_U16, _READ_U16, int64, _U16, _U32, _U32, _U32))
def survey_halves(
    tuned: Any,
    base: Any,
    mantissa_bits: Any,
    uppers: Any,
    counts: Any,
    longs: Any,
    long_count: Any,
) -> Any:
    """Survey a block of 16-bit floats; returns the bits of its largest absolute change.

    uppers  uint16, one to a weight, written: the upper 16 bits of every change
    counts  uint32[COUNTS], added to: changes by key, the inexact ones in the second half; the last
            16 take turns with zeros, since counting one place again and again is slow
    longs   uint32, room for one to a weight, written: the sizes (float32 bits) of inexact changes,
            `long_count[0]` of them; not gathered if it has no room at all
    """
    tile = on_stack(TILE, np.uint32)
    largest = np.int64(0)
    found = np.int64(0)
    for start in range(0, tuned.size, TILE):
        stop = min(start + TILE, tuned.size)
        changes = tile[: stop - start]
        changes_of_halves(tuned[start:stop], base[start:stop], mantissa_bits, changes)
        if longs.size:
            found = _gather(changes, longs, found)
        largest = max(largest, _count(changes, uppers[start:stop], counts))
    long_count[0] = np.uint32(found)
    return largest


@kernel(int64(_READ_U32, _READ_U32, _U16, _U32))
def survey_singles(tuned: Any, base: Any, uppers: Any, counts: Any) -> Any:
    """`survey_halves` for float32."""
    tile = on_stack(TILE, np.uint32)
    largest = np.int64(0)
    for start in range(0, tuned.size, TILE):
        stop = min(start + TILE, tuned.size)
        changes = tile[: stop - start]
        changes_of_singles(tuned[start:stop], base[start:stop], changes)
        largest = max(largest, _count(changes, uppers[start:stop], counts))
    return largest


@kernel(int64(_U32, int64, int64, _F64))
def choose_threshold(counts: Any, largest: Any, wanted: Any, found: Any) -> Any:
    """The key from which on changes are large: nearest to `wanted` of them; at least 1.

    counts  as `survey_halves` leaves them      largest  the bits it returned
    found   float64[3], written: number of large changes, the sum of their sizes, the sum of the
            squares of all changes; an inexact change is taken as the middle of its key
    """
    for i in range(2 * KEYS, COUNTS):
        counts[0] += counts[i]
        counts[i] = 0
    edge = on_stack(2, np.uint32)
    sizes = edge.view(np.float32)
    taken = np.int64(0)
    total = 0.0
    energy = 0.0
    threshold = np.int64(0)
    for back in range((largest >> 16) + 1):
        key = (largest >> 16) - back
        exact = np.int64(counts[key])
        inexact = np.int64(counts[KEYS + key])
        more = exact + inexact
        if more == 0:
            continue
        edge[0] = np.uint32(key << 16)
        edge[1] = np.uint32((key << 16) | 0x8000)
        low = np.float64(sizes[0])
        middle = np.float64(sizes[1])
        energy += low * low * exact + middle * middle * inexact
        if threshold or key == 0:
            continue
        if taken > 0 and taken + more - wanted >= wanted - taken:
            threshold = key + 1
            continue
        taken += more
        total += low * exact + middle * inexact
        if taken >= wanted:
            threshold = key
    found[0] = taken
    found[1] = total
    found[2] = energy
    return max(threshold, np.int64(1))


@kernel(int64(_READ_U16, int64, _U8))
def trits_into(uppers: Any, threshold: Any, trits: Any) -> Any:
    """Trit of every change; returns how many are not 0."""
    least = np.uint16(threshold)
    for i in range(uppers.size):
        upper = uppers[i]
        way = np.uint16(np.uint16(2) - np.uint16(upper >> np.uint16(15)))
        trits[i] = way if np.uint16(upper & np.uint16(0x7FFF)) >= least else np.uint16(0)
    large = np.int64(0)
    for i in range(uppers.size):
        large += np.int64(trits[i] != 0)
    return large


def size_of_key(key: int) -> float:
    """The least size of a change that has this key."""
    return size_of_bits(key << 16)


def size_of_bits(bits: int) -> float:
    """A float32 by its bits."""
    size: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return size
