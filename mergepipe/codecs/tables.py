"""Frequency tables: from counts to frequencies of 2^bits, to nibbles, to what kernels look up.

Encoder and decoder build every table from its description, in integers, so that they agree on
every machine. Descriptions keep four significant bits of a frequency: being 3% off costs 0.0007
bit a symbol, writing the rest would cost more.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import boolean, int64, read_only, uint8, uint16, uint32, void

_NEXT_BYTE = 14  # nibble: the code does not follow closely, the next two nibbles are it
_END = 15  # nibble: the other symbols of this row do not occur

_U8 = uint8[::1]
_U16 = uint16[::1]
_U32 = uint32[::1]
_U32_ROWS = uint32[:, ::1]
_READ_U8 = read_only(uint8[::1])


@kernel()
def normalise(weights: Any, total: Any) -> None:
    """Scale weights in place to sum to `total`; all 0 stays.

    What is not 0 becomes the floor of its share, at least 1. What is missing then goes to the
    first of the greatest; while there is too much, the first of the greatest loses one.
    """
    size = weights.size
    before = np.int64(0)
    for i in range(size):
        before += weights[i]
    if before == 0:
        return
    after = np.int64(0)
    largest = 0
    for i in range(size):
        weight = np.int64(weights[i])
        if weight > 0:
            weights[i] = max(np.int64(1), weight * total // before)
            after += weights[i]
            if weights[i] > weights[largest]:
                largest = i
    if after < total:
        weights[largest] += total - after
    while after > total:
        largest = 0
        for i in range(size):
            if weights[i] > weights[largest]:
                largest = i
        weights[largest] -= 1
        after -= 1


@kernel(inline=True)
def _code(frequency: Any) -> Any:
    """Four significant bits of a frequency, in order: 0..15 as they are, then eight an octave."""
    if frequency < 16:
        return frequency
    octave = 0
    while frequency >> octave >= 16:
        octave += 1
    return 8 + octave * 8 + (frequency >> octave) - 8


@kernel(inline=True)
def _value(code: Any) -> Any:
    """The middle of what a code stands for."""
    if code < 16:
        return code
    octave = (code - 8) >> 3
    return ((8 + (code & 7)) << octave) + (1 << octave >> 1)


@kernel(int64(_U32_ROWS, int64, _U8))
def describe(rows: Any, bits: Any, nibbles: Any) -> Any:
    """Replace counts by the frequencies their description stands for; returns nibbles written.

    rows     uint32[rows, symbols]: counts, then frequencies of 2^bits
    nibbles  uint8, one to an element, at least rows * (3 * symbols + 1) of them
    """
    at = 0
    total = 1 << bits
    for r in range(rows.shape[0]):
        row = rows[r]
        normalise(row, total)
        last = -1
        for s in range(row.size):
            if row[s] > 0:
                last = s
        previous: Any = 0
        for s in range(last + 1):
            code = _code(np.int64(row[s]))
            row[s] = _value(code)
            step = code - previous
            if -7 <= step <= 6:
                nibbles[at] = step + 7
                at += 1
            else:
                nibbles[at] = _NEXT_BYTE
                nibbles[at + 1] = code >> 4
                nibbles[at + 2] = code & 15
                at += 3
            previous = code
        nibbles[at] = _END
        at += 1
        normalise(row, total)
    return at


@kernel(boolean(_READ_U8, int64, _U32_ROWS))
def read_description(nibbles: Any, bits: Any, rows: Any) -> Any:
    """Frequencies that `describe` left, into `rows` of zeros. False if the nibbles do not fit."""
    at = 0
    last_code = 8 * (bits - 2)  # of frequency 2^bits
    for r in range(rows.shape[0]):
        row = rows[r]
        previous: Any = 0
        symbol: Any = 0
        while True:
            if at >= nibbles.size:
                return False
            nibble = np.int64(nibbles[at])
            at += 1
            if nibble == _END:
                break
            if symbol >= row.size:
                return False
            code: Any = previous + nibble - 7
            if nibble == _NEXT_BYTE:
                if at + 2 > nibbles.size:
                    return False
                code = (np.int64(nibbles[at]) << 4) | np.int64(nibbles[at + 1])
                at += 2
            if code < 0 or code > last_code:
                return False
            row[symbol] = _value(code)
            previous = code
            symbol += 1
        normalise(row, 1 << bits)
    return at == nibbles.size


@kernel(void(_U32, int64, _U32))
def fill_encoder(frequencies: Any, bits: Any, entries: Any) -> None:
    """One row for `push_*`: frequency << 16 | start."""
    start = np.uint32(0)
    for s in range(frequencies.size):
        entries[s] = (np.uint32(frequencies[s]) << np.uint32(16)) | start
        start = np.uint32(start + frequencies[s])


@kernel(void(_U32, int64, _U32))
def fill_decoder(frequencies: Any, bits: Any, entries: Any) -> None:
    """One row for `pull_*`, 2^bits entries. A row without symbols gives symbol 0 at no cost."""
    at: Any = 0
    for s in range(frequencies.size):
        count = np.int64(frequencies[s])
        head = ((count - 1) << (8 + bits)) | s
        for k in range(count):
            entries[at + k] = np.uint32(head | (k << 8))
        at += count
    if at == 0:
        head = ((np.int64(1) << bits) - 1) << (8 + bits)
        for k in range(1 << bits):
            entries[k] = np.uint32(head | (k << 8))


@kernel(void(_READ_U8, _U8))
def pack_nibbles(nibbles: Any, packed: Any) -> None:
    """Two to a byte, the first in the low half; an odd one out leaves the upper half 0."""
    for i in range(packed.size):
        high = nibbles[2 * i + 1] if 2 * i + 1 < nibbles.size else np.uint8(0)
        packed[i] = nibbles[2 * i] | (high << np.uint8(4))


@kernel(void(_READ_U8, _U8))
def unpack_nibbles(packed: Any, nibbles: Any) -> None:
    """Undo `pack_nibbles`; `nibbles` has one or no element less than `packed` has nibbles."""
    for i in range(nibbles.size):
        nibbles[i] = (packed[i >> 1] >> np.uint8(4 * (i & 1))) & np.uint8(15)
