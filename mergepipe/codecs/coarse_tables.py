"""The coarse layer's tables: for every density class, how likely each packed byte is.

Within a chunk trits are exchangeable and their signs even, to within 1% of the coarse layer, so six
numbers a class (how many bytes have 0 to 5 non-zero trits) say what 243 would.
"""

from typing import Any

import numpy as np

from mergepipe.codecs.lanes import COARSE_BITS
from mergepipe.codecs.tables import fill_decoder, fill_encoder, normalise
from mergepipe.codecs.trits import CLASSES, STRIPE
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import read_only, uint8, uint16, uint32, void

ROW = 256
SHARES = 6 * (CLASSES - 1)
_TOTAL = 1 << COARSE_BITS
# Of the share of bytes with k non-zero trits, 160ths that one of them has: there are 5 over k,
# times 2^k of them (1, 10, 40, 80, 80, 32), and 160 is the least that all of these divide.
_PARTS = (160, 16, 4, 2, 2, 5)

_U16 = uint16[::1]
_U32 = uint32[::1]
_READ_U8 = read_only(uint8[::1])
_READ_U16 = read_only(uint16[::1])


@kernel(inline=True)
def moved_trits(byte: Any) -> Any:
    """How many of a packed byte's trits are not 0."""
    left = byte
    moved = 0
    for _ in range(5):
        moved += left % 3 > 0
        left //= 3
    return moved


@kernel()
def _frequencies(shares: Any, frequencies: Any) -> None:
    """One class's frequencies of 2^COARSE_BITS from its six shares."""
    frequencies[:] = 0
    for byte in range(243):
        moved = moved_trits(byte)
        frequencies[byte] = np.int64(shares[moved]) * _PARTS[moved]
    normalise(frequencies, _TOTAL)


@kernel(void(_READ_U8, _READ_U8, _U16, _U16, _U32))
def model_coarse(packed: Any, classes: Any, index: Any, shares: Any, entries: Any) -> None:
    """Places of the packed bytes in a table for `push_coarse`, and that table.

    index    uint16, one to a packed byte, written
    shares   uint16[SHARES], written: of 65535, bytes with 0..5 non-zero trits in classes 1..4
    entries  uint32[CLASSES * ROW], written
    """
    counts = on_stack((CLASSES, ROW), np.uint32)
    counts[:] = 0
    for c in range(classes.size):
        row = np.uint16(np.uint16(classes[c]) << np.uint16(8))
        source = packed[c * STRIPE : (c + 1) * STRIPE]
        out = index[c * STRIPE : (c + 1) * STRIPE]
        for j in range(STRIPE):
            out[j] = np.uint16(row | np.uint16(source[j]))
        own = counts[classes[c]]
        for j in range(STRIPE):
            own[source[j]] += np.uint32(1)
    frequencies = on_stack(ROW, np.uint32)
    frequencies[:] = 0
    frequencies[0] = _TOTAL  # class 0 has one byte, which costs nothing
    fill_encoder(frequencies, COARSE_BITS, entries[:ROW])
    sums = on_stack(6, np.int64)
    for c in range(1, CLASSES):
        sums[:] = 0
        for byte in range(243):
            sums[moved_trits(byte)] += counts[c, byte]
        total = max(sums.sum(), 1)
        own_shares = shares[6 * (c - 1) : 6 * c]
        for k in range(6):
            own_shares[k] = max(sums[k] * 65535 // total, np.int64(sums[k] > 0))
        _frequencies(own_shares, frequencies)
        fill_encoder(frequencies, COARSE_BITS, entries[c * ROW : (c + 1) * ROW])


@kernel(void(_READ_U16, _U32))
def coarse_decoder(shares: Any, entries: Any) -> None:
    """The table for `pull_coarse`, uint32[CLASSES << COARSE_BITS]."""
    frequencies = on_stack(ROW, np.uint32)
    frequencies[:] = 0
    fill_decoder(frequencies, COARSE_BITS, entries[:_TOTAL])
    for c in range(1, CLASSES):
        _frequencies(shares[6 * (c - 1) : 6 * c], frequencies)
        fill_decoder(frequencies, COARSE_BITS, entries[c * _TOTAL : (c + 1) * _TOTAL])
