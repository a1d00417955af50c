"""The exact layer's kernels: what is left of a block given its base and its trits.

The 16 bits of a float become an integer that grows with its value: from the `pivot` exponent on
it is the bit pattern itself, counted from the pivot; below, where the spacing of floats is finer
than any change worth a table, it is the value cut to the pivot's spacing, so that a weight that
crosses zero or a tiny exponent moves by a small number of steps like any other. The bits that the
cut lost are stored as they are (they are noise).

The difference of these integers is the symbol. Which table codes it is chosen by what the decoder
knows: the base's exponent from the pivot (how fine the spacing is), whether the trit says that
the change is large, and the density class of the chunk. Differences up to 15 are symbols of their
own; above, a symbol is a range of them (eight to an octave) and the rest is stored as bits. So is
the sign of a difference where the trit does not give it. Symbol 0 means "the base's very bits".
"""

from typing import Any

import numpy as np

from mergepipe.codecs.lanes import LANES, pull_bits, pull_exact, push_bits, push_exact
from mergepipe.codecs.survey import TILE
from mergepipe.codecs.trits import CHUNK, CLASSES
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_bits, on_stack
from mergepipe.kernels.signatures import (
    float32,
    int16,
    int64,
    read_only,
    uint8,
    uint16,
    uint32,
    void,
)

EXPONENTS = 6
KINDS = 2 * EXPONENTS  # small and large changes
ROWS = CLASSES * KINDS
ROW = 128  # symbols a row of the table has room for; 113 are used
_MODEL_TILE = 8 * CHUNK  # what is made of a tile on the way stays in the nearest cache
NULL_ROW = ROWS  # of weights past the end: one symbol, no cost
_FIRST_RANGE = np.uint16(17)  # the symbol of differences 16 and 17
# From a float32's upper 12 bits to a range's symbol.
_RANGES = np.uint32(((127 + 4) << 3) - 17)
# numba widens every operation to 64 bits; saying uint16 after each lets LLVM use 32 lanes, not 8.
_u16 = np.uint16

_U8 = uint8[::1]
_U16 = uint16[::1]
_I16 = int16[::1]
_U32 = uint32[::1]
_F32 = float32[::1]
_READ_U8 = read_only(uint8[::1])
_READ_U16 = read_only(uint16[::1])
_READ_I16 = read_only(int16[::1])


@kernel()
def _to_steps(values: Any, mantissa_bits: Any, pivot: Any, out: Any) -> None:
    """Floats' 16 bits to integers (two's complement) that grow with the value."""
    width = _u16(mantissa_bits)
    low = _u16(pivot)
    hidden = _u16(1 << mantissa_bits)
    mantissa = _u16(hidden - _u16(1))
    first_plain = _u16(pivot << mantissa_bits)
    lift = _u16((pivot - 1) << mantissa_bits)
    for i in range(out.size):
        size = _u16(values[i] & _u16(0x7FFF))
        exponent = _u16(size >> width)
        whole = _u16(_u16(size & mantissa) | (hidden if exponent > 0 else _u16(0)))
        # Wraps where the exponent is above the pivot; that result is not the one chosen.
        cut = _u16(min(_u16(low - max(exponent, _u16(1))), _u16(15)))
        step = _u16(size - lift) if size >= first_plain else _u16(whole >> cut)
        out[i] = _u16(_u16(0) - step) if values[i] >> _u16(15) else step


@kernel()
def _to_distances(tuned_steps: Any, base_steps: Any, distances: Any, down: Any) -> None:
    """How many steps apart, and whether the block is below its base."""
    for i in range(distances.size):
        x = np.int32(tuned_steps[i])
        b = np.int32(base_steps[i])
        distances[i] = np.int32(max(x, b) - min(x, b))
        down[i] = x < b


@kernel()
def _to_symbols(tuned: Any, base: Any, distances: Any, symbols: Any) -> None:
    for i in range(symbols.size):
        distance = np.uint32(distances[i])
        # A float32's exponent and upper three mantissa bits number the octave and its eighth.
        ranged = np.uint32(as_bits(np.float32(np.int32(distance))) >> np.uint32(20)) - _RANGES
        symbol = np.uint32(distance + np.uint32(1)) if distance < 16 else np.uint32(ranged)
        symbols[i] = np.uint32(0) if tuned[i] == base[i] else symbol


@kernel()
def _to_bits(distances: Any, trits: Any, down: Any, bits: Any, counts: Any) -> None:
    """What completes a range and, where the trit is 0, a sign."""
    for i in range(counts.size):
        octave = np.int32(as_bits(np.float32(np.int32(distances[i]))) >> np.uint32(23))
        counts[i] = max(np.int32(octave - np.int32(127 + 3)), np.int32(0))
    for i in range(counts.size):
        count = _u16(counts[i])
        ones = _u16(_u16(_u16(1) << _u16(count & _u16(15))) - _u16(1))
        sign = _u16(down[i]) if trits[i] == 0 else _u16(0)
        bits[i] = _u16(distances[i] & ones) | _u16(sign << _u16(count & _u16(15)))
    for i in range(counts.size):
        counts[i] += np.uint8((trits[i] == 0) & (distances[i] > 0))


@kernel()
def _to_cut_bits(
    tuned: Any, steps: Any, symbols: Any, mantissa_bits: Any, pivot: Any, counts: Any, bits: Any
) -> None:
    """The bits that the cut to the pivot's spacing lost; all 16 of a weight that it made 0."""
    width = _u16(mantissa_bits)
    low = _u16(pivot)
    for i in range(counts.size):
        exponent = max(_u16(_u16(tuned[i] & _u16(0x7FFF)) >> width), _u16(1))
        count = _u16(low - exponent) if exponent < low else _u16(0)
        count = _u16(16) if steps[i] == 0 else count
        counts[i] = count if symbols[i] else _u16(0)
    for i in range(counts.size):
        count = _u16(counts[i])
        ones = _u16(_u16(_u16(1) << _u16(count & _u16(15))) - _u16(1))
        bits[i] = _u16(tuned[i] & (_u16(0xFFFF) if count == 16 else ones))


@kernel()
def _to_rows(
    base: Any, trits: Any, classes: Any, split: Any, mantissa_bits: Any, pivot: Any, rows: Any
) -> None:
    """The row of the table that codes each weight; past the base's end the null row."""
    width = _u16(mantissa_bits)
    low = _u16(pivot)
    for c in range(rows.size // CHUNK):
        rows[c * CHUNK : (c + 1) * CHUNK] = np.uint8(KINDS * classes[c] if split else 0)
    for i in range(base.size):
        exponent = _u16(_u16(base[i] & _u16(0x7FFF)) >> width)
        above = _u16(min(_u16(max(exponent, low) - low), _u16(EXPONENTS - 1)))
        large = _u16(EXPONENTS) if trits[i] else _u16(0)
        rows[i] = _u16(_u16(rows[i]) + _u16(above + large))
    rows[base.size :] = NULL_ROW


@kernel(
    void(_READ_U16, _READ_U16, _READ_U8, _READ_U8, int64, int64, _U16, _U16, _U8, _U16, _U8, _U32)
)
def model(
    tuned: Any,
    base: Any,
    trits: Any,
    classes: Any,
    mantissa_bits: Any,
    pivot: Any,
    index: Any,
    bits: Any,
    bit_counts: Any,
    cut_bits: Any,
    cut_counts: Any,
    counts: Any,
) -> None:
    """Turn a block into symbols and bits, and count the symbols.

    trits, index, bits...  one to a weight, padded to whole pairs of chunks
    counts                 uint32[2 * (ROWS + 1) * ROW], added to: two halves to be summed, of
                           which `index` is a place
    """
    tuned_steps = on_stack(_MODEL_TILE, np.uint16)
    base_steps = on_stack(_MODEL_TILE, np.uint16)
    distances = on_stack(_MODEL_TILE, np.uint16)
    down = on_stack(_MODEL_TILE, np.uint8)
    rows = on_stack(_MODEL_TILE, np.uint8)
    second = (ROWS + 1) * ROW
    for start in range(0, index.size, _MODEL_TILE):
        padded = min(start + _MODEL_TILE, index.size)
        stop = min(padded, tuned.size)
        size = stop - start
        x = tuned[start:stop]
        b = base[start:stop]
        marks = trits[start:stop]
        steps = tuned_steps[:size]
        distance = distances[:size]
        symbols = index[start:stop]
        _to_steps(x, mantissa_bits, pivot, steps)
        _to_steps(b, mantissa_bits, pivot, base_steps[:size])
        _to_distances(steps.view(np.int16), base_steps[:size].view(np.int16), distance, down[:size])
        _to_symbols(x, b, distance, symbols)
        _to_bits(distance, marks, down[:size], bits[start:stop], bit_counts[start:stop])
        _to_cut_bits(
            x,
            steps,
            symbols,
            mantissa_bits,
            pivot,
            cut_counts[start:stop],
            cut_bits[start:stop],
        )
        index[stop:padded] = 0
        bits[stop:padded] = 0
        bit_counts[stop:padded] = 0
        cut_bits[stop:padded] = 0
        cut_counts[stop:padded] = 0
        tile_rows = rows[: padded - start]
        tile_classes = classes[start // CHUNK : padded // CHUNK]
        _to_rows(b, marks, tile_classes, 1, mantissa_bits, pivot, tile_rows)
        places = index[start:padded]
        for i in range(places.size):
            places[i] += _u16(_u16(tile_rows[i]) * _u16(ROW))
        # Two tables in turn: a common symbol would have every count wait for the one before.
        for i in range(0, places.size, 2):
            counts[places[i]] += np.uint32(1)
            counts[second + np.int64(places[i + 1])] += np.uint32(1)


@kernel(int64(_U32, _U16, _U16, _U8, _U16, _U8, _U32, _U16))
def push(
    states: Any,
    index: Any,
    bits: Any,
    bit_counts: Any,
    cut_bits: Any,
    cut_counts: Any,
    table: Any,
    words: Any,
) -> Any:
    """Code what `model` left, tile by tile from the end; returns words written."""
    at = np.int64(0)
    tiles = -(-index.size // TILE)
    for k in range(tiles):
        start = (tiles - 1 - k) * TILE
        stop = min(start + TILE, index.size)
        steps = (stop - start) // LANES
        at = push_bits(states, cut_bits[start:stop], cut_counts[start:stop], words, at, steps)
        at = push_bits(states, bits[start:stop], bit_counts[start:stop], words, at, steps)
        at = push_exact(states, index[start:stop], table, words, at, steps)
    return at


@kernel()
def _bit_counts_of(symbols: Any, trits: Any, counts: Any) -> None:
    """How many bits complete each symbol: of its range, and one of sign where the trit is 0."""
    for i in range(counts.size):
        symbol = _u16(symbols[i])
        ranged = _u16(_u16(_u16(symbol - _FIRST_RANGE) >> _u16(3)) + _u16(1))
        signed = _u16((trits[i] == 0) & (symbol > 1))
        counts[i] = _u16((ranged if symbol >= _FIRST_RANGE else _u16(0)) + signed)


@kernel()
def _to_tuned_steps(symbols: Any, trits: Any, bits: Any, base_steps: Any, out: Any) -> None:
    """Undo the difference."""
    for i in range(out.size):
        symbol = _u16(symbols[i])
        above = _u16(symbol - _FIRST_RANGE)
        ranged = symbol >= _FIRST_RANGE
        count = _u16(_u16(_u16(above >> _u16(3)) + _u16(1)) & _u16(15)) if ranged else _u16(0)
        ones = _u16(_u16(_u16(1) << count) - _u16(1))
        begin = _u16(_u16(_u16(8) + _u16(above & _u16(7))) << count)
        size = _u16(max(symbol, _u16(1)) - _u16(1))
        size = _u16(begin | _u16(bits[i] & ones)) if ranged else size
        sign = _u16(_u16(bits[i] >> count) & _u16(1))
        down = sign if trits[i] == 0 else _u16(trits[i] & np.uint8(1))
        out[i] = _u16(base_steps[i] - size) if down else _u16(base_steps[i] + size)


@kernel()
def _cut_counts_of(symbols: Any, steps: Any, mantissa_bits: Any, pivot: Any, counts: Any) -> None:
    """How many bits the cut lost; the leading bit of a small step tells the exponent."""
    most = np.int32(pivot - 1)
    top = np.int32(127 + mantissa_bits)
    for i in range(steps.size):
        octave = as_bits(np.float32(np.int32(abs(np.int32(steps[i]))))) >> np.uint32(23)
        count = min(max(np.int32(top - np.int32(octave)), np.int32(0)), most)
        count = np.int32(16) if steps[i] == 0 else count
        counts[i] = count if symbols[i] else np.int32(0)


@kernel()
def _from_steps(
    symbols: Any,
    steps: Any,
    cut_counts: Any,
    cut_bits: Any,
    base: Any,
    mantissa_bits: Any,
    pivot: Any,
    out: Any,
) -> None:
    """Steps and cut bits back to floats."""
    width = _u16(mantissa_bits)
    low = _u16(pivot - 1)
    for i in range(out.size):
        step = steps[i]
        sign = _u16(step & _u16(0x8000))
        count = _u16(cut_counts[i])
        size = _u16(_u16(0) - step) if sign else step
        size = _u16(_u16(size << _u16(count & _u16(15))) | cut_bits[i])
        size = _u16(_u16(size + _u16(_u16(low - count) << width)) & _u16(0x7FFF))
        value = cut_bits[i] if step == 0 else _u16(size | sign)
        out[i] = value if symbols[i] else base[i]


@kernel(int64(_U32, _READ_U8, _READ_U8, _READ_U16, int64, int64, int64, _U32, _U16, int64, _U16))
def pull(
    states: Any,
    trits: Any,
    classes: Any,
    base: Any,
    split: Any,
    mantissa_bits: Any,
    pivot: Any,
    table: Any,
    words: Any,
    at: Any,
    out: Any,
) -> Any:
    """Decode a block into `out`; returns the position left, or -1 if the words run out."""
    padded_rows = on_stack(TILE, np.uint8)
    symbols = on_stack(TILE, np.uint8)
    counts = on_stack(TILE, np.uint8)
    counts[:] = 0
    bits = on_stack(TILE, np.uint16)
    base_steps = on_stack(TILE, np.uint16)
    steps = on_stack(TILE, np.uint16)
    for start in range(0, out.size, TILE):
        padded = min(TILE, trits.size - start)
        stop = min(start + TILE, out.size)
        size = stop - start
        number = padded // LANES
        b = base[start:stop]
        marks = trits[start:stop]
        _to_rows(
            b,
            trits[start : start + padded],
            classes[start // CHUNK : (start + padded) // CHUNK],
            split,
            mantissa_bits,
            pivot,
            padded_rows[:padded],
        )
        at = pull_exact(states, padded_rows, table, words, at, number, symbols)
        if at < 0:
            return -1
        counts[size:padded] = 0
        _bit_counts_of(symbols[:size], marks, counts[:size])
        at = pull_bits(states, counts, words, at, number, bits)
        if at < 0:
            return -1
        _to_steps(b, mantissa_bits, pivot, base_steps[:size])
        _to_tuned_steps(symbols[:size], marks, bits[:size], base_steps[:size], steps[:size])
        _cut_counts_of(
            symbols[:size], steps[:size].view(np.int16), mantissa_bits, pivot, counts[:size]
        )
        at = pull_bits(states, counts, words, at, number, bits)
        if at < 0:
            return -1
        _from_steps(
            symbols[:size],
            steps[:size],
            counts[:size],
            bits[:size],
            b,
            mantissa_bits,
            pivot,
            out[start:stop],
        )
    return at
