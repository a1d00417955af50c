"""The first pass over a block and its base: what changed, by how much, and which changes are large.

A change is `x - base` in float32. Its key is the upper 16 bits of its absolute value as float32: 15
bits that order changes by size, two of which are equal only within 1/128 of each other. The
difference of two bf16 values of one exponent fits in its key exactly; a change with more bits than
that is counted apart, in the upper half of the counts. Infinite and NaN changes count as none.
"""

from typing import Any

import numpy as np
from numba import float32, float64, int64, types, uint8, uint16, uint32, void

from mergepipe.codecs.floats import widen
from mergepipe.jit import kernel

KEYS = 1 << 15
TILE = 5120
SUMS = 16
_FINITE = 0x7F800000

_U8 = types.Array(uint8, 1, "C")
_U16 = types.Array(uint16, 1, "C")
_U32 = types.Array(uint32, 1, "C")
_F32 = types.Array(float32, 1, "C")
_F64 = types.Array(float64, 1, "C")
_READ_U16 = types.Array(uint16, 1, "C", readonly=True)
_READ_U32 = types.Array(uint32, 1, "C", readonly=True)
_READ_F32 = types.Array(float32, 1, "C", readonly=True)


@kernel(void(_READ_U32, _READ_U32, _U32))
def changes_into(tuned: Any, base: Any, out: Any) -> None:
    """Bits of float32 `tuned - base`, from the bits of both; infinities and NaNs become 0."""
    x = tuned.view(np.float32)
    b = base.view(np.float32)
    change = out.view(np.float32)
    for i in range(out.size):
        change[i] = x[i] - b[i]
    for i in range(out.size):
        size = out[i] & np.uint32(0x7FFFFFFF)
        out[i] = out[i] if size < np.uint32(_FINITE) else np.uint32(0)


@kernel(void(_READ_U32, _U16))
def keys_into(changes: Any, keys: Any) -> None:
    """Key of every change; the top bit says that the change has more bits than its key."""
    for i in range(changes.size):
        bits = changes[i]
        more = np.uint32(0x8000) if bits & np.uint32(0xFFFF) else np.uint32(0)
        keys[i] = ((bits >> np.uint32(16)) & np.uint32(0x7FFF)) | more


@kernel(void(_READ_F32, _F64))
def add_squares(changes: Any, sums: Any) -> None:
    """Add squares to 16 running sums, element i to sum i % 16: the same order on every machine."""
    whole = changes.size // SUMS
    for k in range(whole):
        piece = changes[k * SUMS : (k + 1) * SUMS]
        for j in range(SUMS):
            sums[j] += np.float64(piece[j]) * np.float64(piece[j])
    for i in range(whole * SUMS, changes.size):
        sums[i % SUMS] += np.float64(changes[i]) * np.float64(changes[i])


@kernel(int64(_READ_U32))
def _largest(changes: Any) -> int:
    largest = np.int32(0)
    for i in range(changes.size):
        largest = max(largest, np.int32(changes[i] & np.uint32(0x7FFFFFFF)))
    return largest


@kernel(int64(_READ_U32, _READ_U32))
def _changed(tuned: Any, base: Any) -> int:
    changed = np.int64(0)
    for i in range(tuned.size):
        changed += np.int64(tuned[i] != base[i])
    return changed


@kernel(void(_READ_U32, _READ_U32, _U32, _U16, _U32, _F64, _U32))
def _survey_tile(
    tuned: Any, base: Any, changes: Any, keys: Any, counts: Any, squares: Any, totals: Any
) -> None:
    changes_into(tuned, base, changes)
    keys_into(changes, keys)
    add_squares(changes.view(np.float32), squares)
    totals[0] = max(np.int64(totals[0]), _largest(changes))
    totals[1] += _changed(tuned, base)
    for i in range(keys.size):
        counts[keys[i]] += np.uint32(1)


@kernel(void(_READ_U16, _READ_U16, int64, _U32, _F64, _U32))
def survey_halves(
    tuned: Any, base: Any, mantissa_bits: int, counts: Any, squares: Any, totals: Any
) -> None:
    """Survey a block of 16-bit floats.

    counts   uint32[2 * KEYS], added to: changes by key, the inexact ones in the upper half
    squares  float64[16], added to: sums of squared changes
    totals   uint32[2]: bits of the largest absolute change; weights whose bits changed
    """
    wide_tuned = np.empty(TILE, np.uint32)
    wide_base = np.empty(TILE, np.uint32)
    changes = np.empty(TILE, np.uint32)
    keys = np.empty(TILE, np.uint16)
    for start in range(0, tuned.size, TILE):
        size = min(TILE, tuned.size - start)
        widen(tuned[start : start + size], mantissa_bits, wide_tuned[:size])
        widen(base[start : start + size], mantissa_bits, wide_base[:size])
        _survey_tile(
            wide_tuned[:size],
            wide_base[:size],
            changes[:size],
            keys[:size],
            counts,
            squares,
            totals,
        )


@kernel(void(_READ_U32, _READ_U32, _U32, _F64, _U32))
def survey_singles(tuned: Any, base: Any, counts: Any, squares: Any, totals: Any) -> None:
    """`survey_halves` for float32."""
    changes = np.empty(TILE, np.uint32)
    keys = np.empty(TILE, np.uint16)
    for start in range(0, tuned.size, TILE):
        size = min(TILE, tuned.size - start)
        stop = start + size
        _survey_tile(
            tuned[start:stop],
            base[start:stop],
            changes[:size],
            keys[:size],
            counts,
            squares,
            totals,
        )


@kernel(int64(_READ_U32, int64, int64, _F64))
def choose_threshold(counts: Any, largest: int, wanted: int, mean: Any) -> int:
    """The key from which on changes are large: nearest to `wanted` of them; at least 1.

    `mean[0]` gets the mean of the large changes, each inexact one taken as the middle of its key.
    """
    edge = np.empty(1, np.uint32)
    edge_real = edge.view(np.float32)
    taken = np.int64(0)
    total = 0.0
    key = largest >> 16
    while key >= 1:
        exact = np.int64(counts[key])
        inexact = np.int64(counts[KEYS + key])
        more = exact + inexact
        if (
            more
            and taken + more > wanted
            and (taken > 0 and wanted - taken <= taken + more - wanted)
        ):
            break
        if more:
            edge[0] = np.uint32(key << 16)
            total += np.float64(edge_real[0]) * exact
            edge[0] = np.uint32((key << 16) | 0x8000)
            total += np.float64(edge_real[0]) * inexact
            taken += more
        if taken >= wanted:
            key -= 1
            break
        key -= 1
    mean[0] = total / taken if taken else 0.0
    return key + 1


@kernel(int64(_READ_U32, int64, _U8, _F64))
def trits_into(changes: Any, threshold: int, trits: Any, sums: Any) -> int:
    """Trit of every change; adds large |change| to 16 running sums; returns how many are large."""
    size = np.empty(SUMS, np.uint32)
    real = size.view(np.float32)
    for i in range(changes.size):
        bits = changes[i]
        large = np.int32((bits >> np.uint32(16)) & np.uint32(0x7FFF)) >= np.int32(threshold)
        way = np.uint32(2) - (bits >> np.uint32(31))
        trits[i] = np.uint8(way if large else np.uint32(0))
    whole = changes.size // SUMS
    for k in range(whole):
        piece = changes[k * SUMS : (k + 1) * SUMS]
        marks = trits[k * SUMS : (k + 1) * SUMS]
        for j in range(SUMS):
            bits = piece[j] & np.uint32(0x7FFFFFFF)
            size[j] = bits if marks[j] else np.uint32(0)
        for j in range(SUMS):
            sums[j] += np.float64(real[j])
    for i in range(whole * SUMS, changes.size):
        size[0] = changes[i] & np.uint32(0x7FFFFFFF) if trits[i] else np.uint32(0)
        sums[i % SUMS] += np.float64(real[0])
    large_count = np.int64(0)
    for i in range(changes.size):
        large_count += np.int64(trits[i] != 0)
    return large_count


@kernel(int64(_READ_U16, _READ_U16, int64, int64, _U8, _F64))
def mark_halves(
    tuned: Any, base: Any, mantissa_bits: int, threshold: int, trits: Any, sums: Any
) -> int:
    """`trits_into` for a block of 16-bit floats."""
    wide_tuned = np.empty(TILE, np.uint32)
    wide_base = np.empty(TILE, np.uint32)
    changes = np.empty(TILE, np.uint32)
    large = np.int64(0)
    for start in range(0, tuned.size, TILE):
        size = min(TILE, tuned.size - start)
        stop = start + size
        widen(tuned[start:stop], mantissa_bits, wide_tuned[:size])
        widen(base[start:stop], mantissa_bits, wide_base[:size])
        changes_into(wide_tuned[:size], wide_base[:size], changes[:size])
        large += trits_into(changes[:size], threshold, trits[start:stop], sums)
    return large


@kernel(int64(_READ_U32, _READ_U32, int64, _U8, _F64))
def mark_singles(tuned: Any, base: Any, threshold: int, trits: Any, sums: Any) -> int:
    """`trits_into` for a block of float32."""
    changes = np.empty(TILE, np.uint32)
    large = np.int64(0)
    for start in range(0, tuned.size, TILE):
        size = min(TILE, tuned.size - start)
        stop = start + size
        changes_into(tuned[start:stop], base[start:stop], changes[:size])
        large += trits_into(changes[:size], threshold, trits[start:stop], sums)
    return large
