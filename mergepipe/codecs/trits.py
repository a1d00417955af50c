"""The coarse layer's symbols: five trits to a byte, their density classes, and what they estimate.

A weight's trit is 0, 1 (-) or 2 (+). 160 weights make a chunk of 32 bytes: byte j of a chunk
holds the trits of its weights j, 32 + j, 64 + j, 96 + j and 128 + j, the first one in the lowest
place. (Five neighbours to a byte would be as small, and would need a shuffle where this needs
plain vector code.) A block's packed trits are a whole number of pairs of chunks; weights past its
end are 0.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import boolean, float32, read_only, uint8, void

STRIPE = 32
CHUNK = 5 * STRIPE
PAIR = 2 * CHUNK
PAIR_BYTES = 2 * STRIPE
CLASSES = 5
# Non-zero trits of a chunk's 160 that begin the next class: none, few, below, about and above the
# usual share. A fine-tune's changes cluster by row, and this is what says so to the tables.
CLASS_STARTS = (1, 14, 41, 81)

_U8 = uint8[::1]
_READ_U8 = read_only(uint8[::1])
_F32 = float32[::1]


def packed_length(count: int) -> int:
    """Bytes of the packed trits of `count` weights."""
    return -(-count // PAIR) * PAIR_BYTES


@kernel(void(_READ_U8, _U8))
def pack_into(trits: Any, packed: Any) -> None:
    """uint8 trits, a whole number of chunks, to packed bytes."""
    for c in range(trits.size // CHUNK):
        chunk = trits[c * CHUNK : (c + 1) * CHUNK]
        out = packed[c * STRIPE : (c + 1) * STRIPE]
        for j in range(STRIPE):
            out[j] = np.uint8(
                chunk[j]
                + 3 * chunk[STRIPE + j]
                + 9 * chunk[2 * STRIPE + j]
                + 27 * chunk[3 * STRIPE + j]
                + 81 * chunk[4 * STRIPE + j]
            )


@kernel(inline=True)
def _third(value: Any) -> Any:
    """A byte divided by 3; spelled out because LLVM vectorises a 16-bit multiplication."""
    return np.uint16((np.uint16(value) * np.uint16(171)) >> np.uint16(9))


@kernel(inline=True)
def _lowest(value: Any, third: Any) -> Any:
    """The lowest trit of a byte, given the byte divided by 3."""
    return np.uint16(np.uint16(value) - np.uint16(3) * third)


@kernel(void(_READ_U8, _U8))
def unpack_into(packed: Any, trits: Any) -> None:
    """Packed bytes to uint8 trits, a whole number of chunks."""
    for c in range(trits.size // CHUNK):
        source = packed[c * STRIPE : (c + 1) * STRIPE]
        out = trits[c * CHUNK : (c + 1) * CHUNK]
        for j in range(STRIPE):
            first = _third(source[j])
            second = _third(first)
            third = _third(second)
            fourth = _third(third)
            out[j] = _lowest(source[j], first)
            out[STRIPE + j] = _lowest(first, second)
            out[2 * STRIPE + j] = _lowest(second, third)
            out[3 * STRIPE + j] = _lowest(third, fourth)
            out[4 * STRIPE + j] = fourth


@kernel(void(_READ_U8, _U8))
def classify_into(trits: Any, classes: Any) -> None:
    """The density class of every chunk of uint8 trits."""
    for c in range(trits.size // CHUNK):
        chunk = trits[c * CHUNK : (c + 1) * CHUNK]
        moved = np.int64(0)
        for j in range(CHUNK):
            moved += np.int64(chunk[j] != 0)
        klass: Any = 0
        for start in CLASS_STARTS:
            klass += moved >= start
        classes[c] = klass


@kernel(inline=True)
def _signed(trit: Any) -> Any:
    """0, -1 or 1 as float32."""
    return np.float32(np.int32(trit >> np.uint16(1)) - np.int32(trit & np.uint16(1)))


@kernel()
def _estimate_chunk(source: Any, magnitude: Any, out: Any) -> None:
    for j in range(STRIPE):
        first = _third(source[j])
        second = _third(first)
        third = _third(second)
        fourth = _third(third)
        out[j] = _signed(_lowest(source[j], first)) * magnitude
        out[STRIPE + j] = _signed(_lowest(first, second)) * magnitude
        out[2 * STRIPE + j] = _signed(_lowest(second, third)) * magnitude
        out[3 * STRIPE + j] = _signed(_lowest(third, fourth)) * magnitude
        out[4 * STRIPE + j] = _signed(fourth) * magnitude


@kernel(void(_READ_U8, float32, _F32))
def estimate_into(packed: Any, magnitude: Any, out: Any) -> None:
    """float32 estimates of `x - base` from packed trits: -magnitude, 0 or +magnitude.

    `out` has one element to a weight of the block; `packed` is `packed_length(out.size)` long.
    """
    whole = out.size // CHUNK
    for c in range(whole):
        source = packed[c * STRIPE : (c + 1) * STRIPE]
        _estimate_chunk(source, magnitude, out[c * CHUNK : (c + 1) * CHUNK])
    rest = out.size - whole * CHUNK
    if rest:
        chunk = on_stack(CHUNK, np.float32)
        _estimate_chunk(packed[whole * STRIPE : (whole + 1) * STRIPE], magnitude, chunk)
        for i in range(rest):
            out[whole * CHUNK + i] = chunk[i]


@kernel(void(_READ_U8, _U8))
def pair_classes(classes: Any, pairs: Any) -> None:
    """Two chunks' classes to a byte: 5 * first + second."""
    for i in range(pairs.size):
        pairs[i] = CLASSES * classes[2 * i] + classes[2 * i + 1]


@kernel(boolean(_READ_U8, _U8, _U8))
def part_classes(pairs: Any, classes: Any, rows: Any) -> Any:
    """Undo `pair_classes`; rows: the class of every packed byte. False if a byte is no pair."""
    for i in range(pairs.size):
        if pairs[i] >= CLASSES * CLASSES:
            return False
        classes[2 * i] = pairs[i] // CLASSES
        classes[2 * i + 1] = pairs[i] % CLASSES
    for c in range(classes.size):
        rows[c * STRIPE : (c + 1) * STRIPE] = classes[c]
    return True


def trits_at(packed: Any, positions: Any) -> Any:
    """The trits (uint8) of the weights at int64 `positions`, rising or not."""
    chunk, inside = np.divmod(positions, CHUNK)
    place, byte = np.divmod(inside, STRIPE)
    return (packed[chunk * STRIPE + byte] // 3**place % 3).astype(np.uint8)
