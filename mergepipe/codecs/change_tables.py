"""Symbols and tables of a coarse layer that follows another: how each packed byte changed.

A symbol is five digits in base 3, of a packed byte's five places, those first that were 0 before:
of a place that was 0, the trit now; of any other 0 (as before), 1 (0 now) or 2 (turned). Within a
chunk places are alike to within a percent, so three shares a class say what 6 x 243 would.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs.coarse_tables import ROW, moved_trits
from mergepipe.codecs.lanes import COARSE_BITS
from mergepipe.codecs.tables import fill_decoder, fill_encoder
from mergepipe.codecs.trits import CLASS_STARTS, CLASSES, STRIPE
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import boolean, read_only, uint8, uint16, uint32, void

BYTES = 243
KINDS = 6  # how many places were not 0 before: 0..5
ROWS = 1 + KINDS * (CLASSES - 1)
SHARES = 3 * (CLASSES - 1)
_TOTAL = 1 << COARSE_BITS
_WHOLE = 1 << 16
_FIRST = 1 << 28

_U8 = uint8[::1]
_U16 = uint16[::1]
_U32 = uint32[::1]
_READ_U8 = read_only(uint8[::1])
_READ_U16 = read_only(uint16[::1])


class Changes(Struct, frozen=True):
    """What a packed byte becomes: uint8[243 * 243], the byte before * 243 + symbol or byte now.

    kinds  uint8[243]: places of a byte that are not 0
    """

    symbols: npt.NDArray[np.uint8]
    results: npt.NDArray[np.uint8]
    kinds: npt.NDArray[np.uint8]


@cache
def changes() -> Changes:
    """The tables between bytes and symbols."""
    powers = 3 ** np.arange(5, dtype=np.uint8)
    places = np.arange(BYTES, dtype=np.uint8)[:, None] // powers % 3  # trits of every byte
    before, now = places[:, None, :], places[None, :, :]
    gone = np.where(now == 0, np.uint8(1), np.uint8(2))
    digits = np.where(before == 0, now, np.where(before == now, np.uint8(0), gone))
    order = np.argsort(places != 0, axis=1, kind="stable")
    # A place's power is that of where it comes to stand.
    weights = np.empty_like(places)
    np.put_along_axis(weights, order, np.broadcast_to(powers, places.shape), axis=1)
    symbols = np.einsum("abp,ap->ab", digits, weights)
    results = np.empty_like(symbols)
    np.put_along_axis(results, symbols.astype(np.intp), np.arange(BYTES, dtype=np.uint8)[None], 1)
    kinds = (places != 0).sum(axis=1).astype(np.uint8)
    return Changes(symbols.ravel(), results.ravel(), kinds)


@kernel(void(_READ_U8, _READ_U8, _READ_U8, _U8, _U8))
def changes_into(before: Any, now: Any, table: Any, symbols: Any, classes: Any) -> None:
    """The symbol of every packed byte, and the density class of every chunk.

    table  `Changes.symbols`; bytes are below 243
    """
    places = on_stack(ROW, np.uint8)
    for symbol in range(BYTES):
        places[symbol] = moved_trits(symbol)
    for c in range(classes.size):
        moved = np.int64(0)
        for i in range(c * STRIPE, (c + 1) * STRIPE):
            symbol = table[np.int64(before[i]) * BYTES + np.int64(now[i])]
            symbols[i] = symbol
            moved += np.int64(places[symbol])
        klass: Any = 0
        for start in CLASS_STARTS:
            klass += moved >= start
        classes[c] = klass


@kernel(void(_READ_U8, _READ_U8, _READ_U8, _U8))
def rows_into(before: Any, classes: Any, kinds: Any, rows: Any) -> None:
    """The row of every packed byte: its chunk's class and its kind."""
    for c in range(classes.size):
        if classes[c] == 0:
            rows[c * STRIPE : (c + 1) * STRIPE] = 0
            continue
        first = np.uint8(1 + KINDS * (classes[c] - 1))
        for i in range(c * STRIPE, (c + 1) * STRIPE):
            rows[i] = np.uint8(first + kinds[before[i]])


@kernel(void(_READ_U8, _READ_U8, _READ_U8, _U8))
def change_into(before: Any, symbols: Any, table: Any, now: Any) -> None:
    """Undo `changes_into`. table: `Changes.results`; bytes and symbols are below 243."""
    for i in range(now.size):
        now[i] = table[np.int64(before[i]) * BYTES + np.int64(symbols[i])]


@kernel(inline=True)
def _times(weight: Any, share: Any) -> Any:
    """A weight times a share of 2^16: 0 if that is, else at least 1."""
    if weight == 0 or share == 0:
        return np.int64(0)
    return max(np.int64(1), (weight * share) >> 16)


@kernel()
def _frequencies(shares: Any, kind: Any, frequencies: Any) -> None:
    """One row's frequencies of 2^COARSE_BITS, from the three shares of its class."""
    appear, vanish, turn = np.int64(shares[0]), np.int64(shares[1]), np.int64(shares[2])
    frequencies[:] = 0
    total = np.int64(0)
    occurring = np.int64(0)
    for symbol in range(BYTES):
        weight = np.int64(_FIRST)
        left = symbol
        for place in range(5):
            digit = left % 3
            left //= 3
            if place < 5 - kind:
                share = (appear + 1) >> 1 if digit else _WHOLE - appear
            elif digit == 0:
                share = _WHOLE - vanish - turn
            else:
                share = vanish if digit == 1 else turn
            weight = _times(weight, np.int64(share))
        frequencies[symbol] = weight
        total += weight
        occurring += weight > 0
    spare = _TOTAL - occurring
    given = np.int64(0)
    largest = 0
    for symbol in range(BYTES):
        weight = np.int64(frequencies[symbol])
        if weight:
            frequencies[symbol] = 1 + weight * spare // total
            given += frequencies[symbol]
            if frequencies[symbol] > frequencies[largest]:
                largest = symbol
    frequencies[largest] += _TOTAL - given


@kernel(inline=True)
def _share(part: Any, whole: Any) -> Any:
    """Of 65535, at least 1 of what is there."""
    return max(part * 65535 // max(whole, np.int64(1)), np.int64(part > 0))


@kernel(void(_READ_U8, _READ_U8, _U16, _U16, _U32))
def model_changes(symbols: Any, rows: Any, index: Any, shares: Any, entries: Any) -> None:
    """Places of symbols in a table for `push_coarse`, and that table.

    index    uint16, one to a symbol, written
    shares   uint16[SHARES], written: of classes 1..4, what appears, vanishes and turns, of 65535
    entries  uint32[ROWS * ROW], written
    """
    counts = on_stack((ROWS, ROW), np.uint32)
    counts[:] = 0
    for i in range(symbols.size):
        index[i] = np.uint16((np.uint16(rows[i]) << np.uint16(8)) | np.uint16(symbols[i]))
        counts[rows[i], symbols[i]] += np.uint32(1)
    frequencies = on_stack(ROW, np.uint32)
    frequencies[:] = 0
    frequencies[0] = _TOTAL  # class 0 has one symbol, which costs nothing
    fill_encoder(frequencies, COARSE_BITS, entries[:ROW])
    digits = on_stack((2, 3), np.int64)  # of places that were 0, and of the others
    for c in range(CLASSES - 1):
        digits[:] = 0
        for kind in range(KINDS):
            for symbol in range(BYTES):
                count = np.int64(counts[1 + KINDS * c + kind, symbol])
                if count == 0:
                    continue
                left = symbol
                for place in range(5):
                    digits[np.int64(place >= 5 - kind), left % 3] += count
                    left //= 3
        of_class = shares[3 * c : 3 * c + 3]
        zeros = digits[0, 0] + digits[0, 1] + digits[0, 2]
        others = digits[1, 0] + digits[1, 1] + digits[1, 2]
        of_class[0] = _share(digits[0, 1] + digits[0, 2], zeros)
        of_class[1] = _share(digits[1, 1], others)
        of_class[2] = _share(digits[1, 2], others)
        for kind in range(KINDS):
            row = 1 + KINDS * c + kind
            _frequencies(of_class, kind, frequencies)
            fill_encoder(frequencies, COARSE_BITS, entries[row * ROW : (row + 1) * ROW])


@kernel(boolean(_READ_U16, _U32))
def change_decoder(shares: Any, entries: Any) -> Any:
    """The table for `pull_coarse`, uint32[ROWS << COARSE_BITS]. False for shares past the whole."""
    frequencies = on_stack(ROW, np.uint32)
    frequencies[:] = 0
    fill_decoder(frequencies, COARSE_BITS, entries[:_TOTAL])
    for c in range(CLASSES - 1):
        of_class = shares[3 * c : 3 * c + 3]
        if np.int64(of_class[1]) + np.int64(of_class[2]) > 65535:
            return False
        for kind in range(KINDS):
            row = 1 + KINDS * c + kind
            _frequencies(of_class, kind, frequencies)
            fill_decoder(frequencies, COARSE_BITS, entries[row * _TOTAL : (row + 1) * _TOTAL])
    return True
