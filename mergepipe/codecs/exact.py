"""The exact layer's kernels: what is left of a block given its base and its trits.

The 16 bits of a float become an integer that grows with its value: from the `pivot` exponent on it is
the bit pattern itself, counted from the pivot; below, where the spacing of floats is finer than any
change worth a table, it is the value cut to the pivot's spacing, so that a weight that crosses zero
or a tiny exponent moves by a small number of steps like any other. The bits that the cut lost are
stored as they are (they are noise).

The difference of these integers is the symbol. Which table codes it is chosen by what the decoder
knows: the base's exponent from the pivot (how fine the spacing is), whether the trit says that the
change is large, and the density class of the chunk. Differences up to 15 are symbols of their own;
above, a symbol is a range of them (eight to an octave) and the rest is stored as bits. So is the sign
of a difference where the trit does not give it. Symbol 0 means "the base's very bits".
"""

from typing import Any

import numpy as np
from numba import float32, int16, int64, types, uint8, uint16, uint32, void

from mergepipe.codecs import lanes
from mergepipe.codecs.lanes import LANES
from mergepipe.codecs.survey import TILE
from mergepipe.codecs.tables import EXACT_ROW
from mergepipe.codecs.trits import CHUNK, CLASSES
from mergepipe.jit import kernel

EXPONENTS = 6
KINDS = 2 * EXPONENTS  # small and large changes
ROWS = CLASSES * KINDS
NULL_ROW = ROWS  # of weights past the end: one symbol, no cost
_FIRST_RANGE = 17  # the symbol of differences 16 and 17
_BIAS4 = (127 + 4) << 3

_U8 = types.Array(uint8, 1, "C")
_U16 = types.Array(uint16, 1, "C")
_I16 = types.Array(int16, 1, "C")
_U32 = types.Array(uint32, 1, "C")
_F32 = types.Array(float32, 1, "C")
_READ_U8 = types.Array(uint8, 1, "C", readonly=True)
_READ_U16 = types.Array(uint16, 1, "C", readonly=True)
_READ_I16 = types.Array(int16, 1, "C", readonly=True)


@kernel(void(_READ_U16, int64, int64, _I16))
def _to_steps(values: Any, mantissa_bits: int, pivot: int, out: Any) -> None:
    """Floats' 16 bits to integers that grow with the value."""
    width = np.int32(mantissa_bits)
    hidden = np.int32(1 << mantissa_bits)
    low = np.int32(pivot)
    lift = np.int32((pivot - 1) << mantissa_bits)
    for i in range(out.size):
        size = np.int32(values[i] & np.uint16(0x7FFF))
        exponent = np.int32(size >> width)
        whole = np.int32(size - (np.int32(exponent - np.int32(1)) << width))
        whole = size if exponent == 0 else whole
        cut = min(max(np.int32(low - max(exponent, np.int32(1))), np.int32(0)), np.int32(15))
        step = np.int32(size - lift) if exponent >= low else np.int32(whole >> cut)
        out[i] = -step if values[i] >> np.uint16(15) else step


@kernel(void(_READ_U16, _READ_U16, _READ_I16, _READ_I16, _READ_U8, _U16, _U8, _U16, _U8))
def _to_symbols(
    tuned: Any,
    base: Any,
    tuned_steps: Any,
    base_steps: Any,
    trits: Any,
    symbols: Any,
    bit_counts: Any,
    bits: Any,
    away: Any,
) -> None:
    """Symbols, and the bits that complete a range and a sign."""
    reals = np.empty(TILE, np.float32)
    patterns = reals.view(np.uint32)
    for i in range(symbols.size):
        difference = np.int32(np.int32(tuned_steps[i]) - np.int32(base_steps[i]))
        reals[i] = np.float32(np.int32(abs(difference)))
        away[i] = difference < 0
    for i in range(symbols.size):
        pattern = patterns[i]
        octave = np.int32(pattern >> np.uint32(23))
        ranged = octave >= 127 + 4
        exact = np.int32(reals[i]) + np.int32(1)
        symbol = np.int32(pattern >> np.uint32(20)) - np.int32(_BIAS4 - _FIRST_RANGE)
        symbols[i] = symbol if ranged else exact
    for i in range(symbols.size):
        octave = np.int32(patterns[i] >> np.uint32(23))
        bit_counts[i] = max(np.int32(octave - np.int32(127 + 3)), np.int32(0))
    for i in range(symbols.size):
        count = np.int32(bit_counts[i])
        difference = np.int32(reals[i])
        signed = np.int32((trits[i] == 0) & (difference > 0))
        ones = np.int32(np.int32(np.int32(1) << count) - np.int32(1))
        bits[i] = (difference & ones) | (np.int32(np.int32(away[i]) & signed) << count)
    for i in range(symbols.size):
        bit_counts[i] += np.uint8((trits[i] == 0) & (symbols[i] > 1))
    for i in range(symbols.size):
        symbols[i] = symbols[i] if tuned[i] != base[i] else np.uint16(0)


@kernel(void(_READ_U16, _READ_I16, _READ_U16, int64, int64, _U8, _U16))
def _to_cut_bits(
    tuned: Any,
    tuned_steps: Any,
    symbols: Any,
    mantissa_bits: int,
    pivot: int,
    bit_counts: Any,
    bits: Any,
) -> None:
    """The bits that the cut to the pivot's spacing lost; all 16 of a weight that it made 0."""
    width = np.int32(mantissa_bits)
    low = np.int32(pivot)
    for i in range(bits.size):
        size = np.int32(tuned[i] & np.uint16(0x7FFF))
        exponent = max(np.int32(size >> width), np.int32(1))
        count = min(max(np.int32(low - exponent), np.int32(0)), np.int32(16))
        count = np.int32(16) if tuned_steps[i] == 0 else count
        bit_counts[i] = count if symbols[i] else np.int32(0)
    for i in range(bits.size):
        ones = np.int32(np.int32(np.int32(1) << np.int32(bit_counts[i])) - np.int32(1))
        bits[i] = np.int32(tuned[i]) & ones


@kernel(void(_READ_U16, _READ_U8, int64, int64, int64, _U8))
def _to_rows(
    base: Any, trits: Any, mantissa_bits: int, pivot: int, first_row: int, rows: Any
) -> None:
    """The row of the table that codes each weight of one chunk."""
    width = np.uint16(mantissa_bits)
    for i in range(rows.size):
        exponent = np.int32((base[i] & np.uint16(0x7FFF)) >> width)
        above = min(max(np.int32(exponent - np.int32(pivot)), np.int32(0)), np.int32(EXPONENTS - 1))
        large = np.int32(EXPONENTS) if trits[i] else np.int32(0)
        rows[i] = np.int32(np.int32(first_row) + np.int32(above + large))


@kernel(void(_READ_U16, _READ_U8, _READ_U8, int64, int64, int64, _U8))
def _to_rows_of_chunks(
    base: Any, trits: Any, classes: Any, split: int, mantissa_bits: int, pivot: int, rows: Any
) -> None:
    """Rows of a tile; past the base's end the null row."""
    for c in range(rows.size // CHUNK):
        start = c * CHUNK
        stop = min(start + CHUNK, base.size)
        first_row = KINDS * np.int64(classes[c]) if split else 0
        if stop > start:
            _to_rows(
                base[start:stop],
                trits[start:stop],
                mantissa_bits,
                pivot,
                first_row,
                rows[start:stop],
            )
    for i in range(base.size, rows.size):
        rows[i] = NULL_ROW


@kernel(
    void(_READ_U16, _READ_U16, _READ_U8, _READ_U8, int64, int64, _U16, _U16, _U8, _U16, _U8, _U32)
)
def model(
    tuned: Any,
    base: Any,
    trits: Any,
    classes: Any,
    mantissa_bits: int,
    pivot: int,
    index: Any,
    bits: Any,
    bit_counts: Any,
    cut_bits: Any,
    cut_counts: Any,
    counts: Any,
) -> None:
    """Turn a block into symbols and bits, and count the symbols.

    trits, index, bits...  one to a weight, padded to whole pairs of chunks
    counts                 uint32[(ROWS + 1) * EXACT_ROW], added to; `index` is a place in it
    """
    tuned_steps = np.empty(TILE, np.int16)
    base_steps = np.empty(TILE, np.int16)
    away = np.empty(TILE, np.uint8)
    rows = np.empty(TILE, np.uint8)
    for start in range(0, index.size, TILE):
        padded = min(start + TILE, index.size)
        stop = min(padded, tuned.size)
        size = stop - start
        x = tuned[start:stop]
        b = base[start:stop]
        _to_steps(x, mantissa_bits, pivot, tuned_steps[:size])
        _to_steps(b, mantissa_bits, pivot, base_steps[:size])
        symbols = index[start:stop]
        _to_symbols(
            x,
            b,
            tuned_steps[:size],
            base_steps[:size],
            trits[start:stop],
            symbols,
            bit_counts[start:stop],
            bits[start:stop],
            away[:size],
        )
        _to_cut_bits(
            x,
            tuned_steps[:size],
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
        _to_rows_of_chunks(
            b,
            trits[start:padded],
            classes[start // CHUNK : padded // CHUNK],
            1,
            mantissa_bits,
            pivot,
            tile_rows,
        )
        places = index[start:padded]
        for i in range(places.size):
            places[i] += np.uint16(np.uint16(tile_rows[i]) * np.uint16(EXACT_ROW))
        for i in range(places.size):
            counts[places[i]] += np.uint32(1)


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
) -> int:
    """Code what `model` left, tile by tile from the end; returns words written."""
    at = np.int64(0)
    tiles = -(-index.size // TILE)
    for k in range(tiles):
        start = (tiles - 1 - k) * TILE
        stop = min(start + TILE, index.size)
        steps = (stop - start) // LANES
        at = lanes.push_bits(states, cut_bits[start:stop], cut_counts[start:stop], words, at, steps)
        at = lanes.push_bits(states, bits[start:stop], bit_counts[start:stop], words, at, steps)
        at = lanes.push_exact(states, index[start:stop], table, words, at, steps)
    return at


@kernel(void(_READ_U8, _READ_U8, _U8))
def _bit_counts_of(symbols: Any, trits: Any, bit_counts: Any) -> None:
    """How many bits complete each symbol: of its range, and one of sign where the trit is 0."""
    for i in range(symbols.size):
        symbol = np.int32(symbols[i])
        above = np.int32(symbol - np.int32(_FIRST_RANGE))
        ranged = (
            np.int32(np.int32(above >> np.int32(3)) + np.int32(1)) if above >= 0 else np.int32(0)
        )
        signed = np.int32((trits[i] == 0) & (symbol > 1))
        bit_counts[i] = np.int32(ranged + signed)


@kernel(void(_READ_U8, _READ_U8, _READ_U16, _READ_I16, _I16))
def _to_tuned_steps(symbols: Any, trits: Any, bits: Any, base_steps: Any, out: Any) -> None:
    """Undo the difference."""
    for i in range(out.size):
        symbol = np.int32(symbols[i])
        above = np.int32(symbol - np.int32(_FIRST_RANGE))
        count = (
            np.int32(np.int32(above >> np.int32(3)) + np.int32(1)) if above >= 0 else np.int32(0)
        )
        ones = np.int32(np.int32(np.int32(1) << count) - np.int32(1))
        begin = np.int32(np.int32(8 + (symbol - _FIRST_RANGE & 7)) << count)
        size = np.int32(begin | (np.int32(bits[i]) & ones))
        size = size if above >= 0 else max(np.int32(symbol - np.int32(1)), np.int32(0))
        sign = np.int32(np.int32(bits[i]) >> count) & np.int32(1)
        down = sign if trits[i] == 0 else np.int32(trits[i] & np.uint8(1))
        moved = np.int32(-size) if down else size
        out[i] = np.int32(np.int32(base_steps[i]) + moved)


@kernel(void(_READ_U8, _READ_I16, int64, int64, _U8))
def _cut_counts_of(symbols: Any, steps: Any, mantissa_bits: int, pivot: int, counts: Any) -> None:
    """How many bits the cut lost; the leading bit of a small step tells the exponent."""
    reals = np.empty(TILE, np.float32)
    patterns = reals.view(np.uint32)
    for i in range(steps.size):
        reals[i] = np.float32(abs(np.int32(steps[i])))
    most = np.int32(pivot - 1)
    top = np.int32(127 + mantissa_bits)
    for i in range(steps.size):
        count = max(np.int32(top - np.int32(patterns[i] >> np.uint32(23))), np.int32(0))
        count = min(count, most)
        count = np.int32(16) if steps[i] == 0 else count
        counts[i] = count if symbols[i] else np.int32(0)


@kernel(void(_READ_U8, _READ_I16, _READ_U8, _READ_U16, _READ_U16, int64, int64, _U16))
def _from_steps(
    symbols: Any,
    steps: Any,
    cut_counts: Any,
    cut_bits: Any,
    base: Any,
    mantissa_bits: int,
    pivot: int,
    out: Any,
) -> None:
    """Steps and cut bits back to floats."""
    width = np.int32(mantissa_bits)
    low = np.int32(pivot - 1)
    for i in range(out.size):
        step = np.int32(steps[i])
        count = np.int32(cut_counts[i])
        size = np.int32(np.int32(np.int32(abs(step)) << count) | np.int32(cut_bits[i]))
        size = np.int32(size + np.int32(np.int32(low - count) << width)) & np.int32(0x7FFF)
        sign = np.int32(0x8000) if step < 0 else np.int32(0)
        value = np.int32(cut_bits[i]) if step == 0 else np.int32(size | sign)
        out[i] = value if symbols[i] else np.int32(base[i])


@kernel(int64(_U32, _READ_U8, _READ_U8, _READ_U16, int64, int64, int64, _U32, _U16, int64, _U16))
def pull(
    states: Any,
    trits: Any,
    classes: Any,
    base: Any,
    split: int,
    mantissa_bits: int,
    pivot: int,
    table: Any,
    words: Any,
    at: int,
    out: Any,
) -> int:
    """Decode a block into `out`; returns the position left, or -1 if the words run out."""
    padded_rows = np.empty(TILE, np.uint8)
    symbols = np.empty(TILE, np.uint8)
    counts = np.zeros(TILE, np.uint8)
    bits = np.empty(TILE, np.uint16)
    base_steps = np.empty(TILE, np.int16)
    steps = np.empty(TILE, np.int16)
    for start in range(0, out.size, TILE):
        padded = min(TILE, trits.size - start)
        stop = min(start + TILE, out.size)
        size = stop - start
        number = padded // LANES
        b = base[start:stop]
        marks = trits[start:stop]
        _to_rows_of_chunks(
            b,
            trits[start : start + padded],
            classes[start // CHUNK : (start + padded) // CHUNK],
            split,
            mantissa_bits,
            pivot,
            padded_rows[:padded],
        )
        at = lanes.pull_exact(states, padded_rows, table, words, at, number, symbols)
        if at < 0:
            return -1
        counts[size:padded] = 0
        _bit_counts_of(symbols[:size], marks, counts[:size])
        at = lanes.pull_bits(states, counts, words, at, number, bits)
        if at < 0:
            return -1
        _to_steps(b, mantissa_bits, pivot, base_steps[:size])
        _to_tuned_steps(symbols[:size], marks, bits[:size], base_steps[:size], steps[:size])
        _cut_counts_of(symbols[:size], steps[:size], mantissa_bits, pivot, counts[:size])
        at = lanes.pull_bits(states, counts, words, at, number, bits)
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
