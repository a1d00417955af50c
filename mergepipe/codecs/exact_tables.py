"""The exact layer's tables: one row of symbol frequencies for every row `exact_kernels` names.

A block has a row for each exponent and size of change, or, where that pays for describing them, one
for each density class of these. The last row is that of weights past the block's end.
"""

from math import log2
from typing import Any

import numpy as np

from mergepipe.codecs.exact_kernels import KINDS, NULL_ROW, ROW, ROWS
from mergepipe.codecs.lanes import EXACT_BITS
from mergepipe.codecs.tables import describe, fill_decoder, fill_encoder, read_description
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import boolean, int64, read_only, uint8, uint32

MOST_NIBBLES = ROWS * (3 * ROW + 1)
_TOTAL = 1 << EXACT_BITS
_SHARED_NIBBLES = KINDS * (3 * ROW + 1)
_READ_U8 = read_only(uint8[::1])
_READ_U32 = read_only(uint32[::1])
_U8 = uint8[::1]
_U32 = uint32[::1]
# Bits that a symbol of each frequency costs, in 1024ths; integers, so that every machine chooses
# alike.
_BITS_OF = np.array(
    [0, *(round(1024 * (EXACT_BITS - log2(f))) for f in range(1, _TOTAL + 1))], np.uint32
)


@kernel(inline=True)
def _cost(counts: Any, frequencies: Any) -> Any:
    """Bits that coding the counts takes with these frequencies."""
    total = np.int64(0)
    for r in range(counts.shape[0]):
        for s in range(counts.shape[1]):
            if counts[r, s]:
                total += np.int64(counts[r, s]) * np.int64(_BITS_OF[frequencies[r, s]])
    return total >> 10


@kernel(int64(_READ_U32, _U8, _U32))
def exact_encoder(counts: Any, nibbles: Any, entries: Any) -> Any:
    """Choose between shared and split tables; returns nibbles used * 2 + (1 if split).

    counts   as `exact_kernels.model` leaves them
    nibbles  uint8[MOST_NIBBLES], written: the description
    entries  uint32[(ROWS + 1) * ROW], written: the table for `push_exact`
    """
    split = on_stack((ROWS, ROW), np.uint32)
    shared = on_stack((KINDS, ROW), np.uint32)
    shared[:] = 0
    half = (ROWS + 1) * ROW
    for r in range(ROWS):
        for s in range(ROW):
            split[r, s] = counts[r * ROW + s] + counts[half + r * ROW + s]
            shared[r % KINDS, s] += split[r, s]
    split_frequencies = on_stack((ROWS, ROW), np.uint32)
    shared_frequencies = on_stack((KINDS, ROW), np.uint32)
    for r in range(ROWS):
        for s in range(ROW):
            split_frequencies[r, s] = split[r, s]
    for r in range(KINDS):
        for s in range(ROW):
            shared_frequencies[r, s] = shared[r, s]
    used = describe(split_frequencies, EXACT_BITS, nibbles)
    split_cost = _cost(split, split_frequencies) + 4 * used
    other = on_stack(_SHARED_NIBBLES, np.uint8)
    shared_used = describe(shared_frequencies, EXACT_BITS, other)
    is_split = split_cost < _cost(shared, shared_frequencies) + 4 * shared_used
    if not is_split:
        for i in range(shared_used):
            nibbles[i] = other[i]
        used = shared_used
    for r in range(ROWS):
        row = split_frequencies[r] if is_split else shared_frequencies[r % KINDS]
        fill_encoder(row, EXACT_BITS, entries[r * ROW : (r + 1) * ROW])
    entries[NULL_ROW * ROW :] = 0
    entries[NULL_ROW * ROW] = _TOTAL << 16
    return 2 * used + np.int64(is_split)


@kernel(boolean(_READ_U8, int64, _U32))
def exact_decoder(nibbles: Any, split: Any, entries: Any) -> Any:
    """The table for `pull_exact`, uint32[(ROWS + 1) << EXACT_BITS]; False if the nibbles are wrong.

    Without `split` only the first KINDS rows and the last are written, and only those are used.
    """
    rows = on_stack((ROWS, ROW), np.uint32)[: ROWS if split else KINDS]
    rows[:] = 0
    if not read_description(nibbles, EXACT_BITS, rows):
        return False
    for r in range(rows.shape[0]):
        fill_decoder(rows[r], EXACT_BITS, entries[r * _TOTAL : (r + 1) * _TOTAL])
    nothing = on_stack(1, np.uint32)
    nothing[0] = 0
    fill_decoder(nothing, EXACT_BITS, entries[NULL_ROW * _TOTAL :])
    return True
