"""Layer 0 of `residual`: which weights changed much, which way, and how much on average.

Payload, little-endian (docs/format-codecs.md says why):

    u8   version of the layout, 1        u8   1 if trits follow, 0 if every trit is 0
    f32  magnitude: mean size of a large change      f32  threshold: size from which it is large
    4 x 6 u16  for classes 1..4: share of bytes with 0..5 non-zero trits, of 65535
    u32  length of the class frame       zstd frame: two chunks' classes a byte, 5 * first + second
    64 u32  rANS states                  u16  words, to the end
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs import frames, lanes
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.pieces import Pieces
from mergepipe.codecs.scratch import scratch
from mergepipe.codecs.tables import COARSE_ROW, coarse_row, fill_decoder, fill_encoder
from mergepipe.codecs.trits import CLASSES, STRIPE, index_into, packed_length
from mergepipe.errors import CodecError

LAYOUT = 1
_HEAD = struct.Struct("<BBff")
_TABLES = np.dtype(("<u2", (CLASSES - 1, 6)))
_STATES_BYTES = 4 * lanes.LANES


@dataclass(frozen=True, slots=True)
class CoarseHead:
    """magnitude: the estimate of a large change. threshold: the least large change. Float32 values."""

    magnitude: float
    threshold: float


def _frequencies(shares: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint32]:
    """uint32[CLASSES, 256] of every class's bytes; class 0 has one byte, which costs nothing."""
    rows = np.zeros((CLASSES, COARSE_ROW), np.uint32)
    rows[0, 0] = 1 << lanes.COARSE_BITS
    for klass in range(1, CLASSES):
        coarse_row(shares[klass - 1], rows[klass])
    return rows


def encode_coarse(
    head: CoarseHead, packed: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8]
) -> bytes:
    """The payload. packed: as in trits.py. classes: one to a chunk of packed trits."""
    if not classes.any():
        return _HEAD.pack(LAYOUT, 0, head.magnitude, head.threshold)
    index = scratch("index", packed.size, np.uint16)
    counts = np.zeros((CLASSES, 6), np.uint32)
    index_into(packed, classes, index, counts)
    shares = np.zeros((CLASSES - 1, 6), np.uint16)
    for klass in range(1, CLASSES):
        moved = counts[klass].astype(np.int64)
        if moved.any():
            scaled = np.maximum(moved * 65535 // moved.sum(), 1)
            shares[klass - 1] = np.where(moved > 0, scaled, 0)
    table = np.zeros(CLASSES * COARSE_ROW, np.uint32)
    for klass, row in enumerate(_frequencies(shares)):
        fill_encoder(row, lanes.COARSE_BITS, table[klass * COARSE_ROW : (klass + 1) * COARSE_ROW])
    states = np.full(lanes.LANES, lanes.INITIAL_STATE, np.uint32)
    words = scratch("words", packed.size + lanes.LANES, np.uint16)
    used = lanes.push_coarse(states, index, table, words, 0, packed.size // lanes.LANES)
    frame = frames.compress((classes[0::2] * np.uint8(CLASSES) + classes[1::2]).tobytes(), 1)
    return b"".join(
        (
            _HEAD.pack(LAYOUT, 1, head.magnitude, head.threshold),
            shares.tobytes(),
            len(frame).to_bytes(4, "little"),
            frame,
            states.tobytes(),
            words[:used].tobytes(),
        )
    )


def coarse_head(payload: Buffer) -> CoarseHead:
    """Magnitude and threshold, without decoding. Raises CodecError."""
    return _head(Pieces(payload))[0]


def _head(pieces: Pieces) -> tuple[CoarseHead, int]:
    layout, coded, magnitude, threshold = _HEAD.unpack(pieces.take(_HEAD.size).tobytes())
    if layout != LAYOUT or coded > 1:
        raise CodecError(f"unknown coarse layout {layout}.{coded}")
    return CoarseHead(magnitude, threshold), coded


def coarse_symbols(payload: Buffer, count: int) -> npt.NDArray[np.uint8]:
    """The packed trits (trits.py) of a block of `count` weights. Raises CodecError."""
    return decode_coarse(payload, count)[0]


def decode_coarse(
    payload: Buffer, count: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Packed trits and the class of every chunk. Raises CodecError."""
    pieces = Pieces(payload)
    _, coded = _head(pieces)
    size = packed_length(count)
    chunks = size // STRIPE
    if not coded:
        if pieces.rest().size:
            raise CodecError("a coarse payload without trits has bytes left over")
        return np.zeros(size, np.uint8), np.zeros(chunks, np.uint8)
    shares = np.frombuffer(pieces.take(_TABLES.itemsize).tobytes(), "<u2").reshape(CLASSES - 1, 6)
    length = pieces.number()
    pairs = np.frombuffer(frames.decompress(pieces.take(length).data, chunks // 2), np.uint8)
    if pairs.max(initial=0) >= CLASSES**2:
        raise CodecError("a coarse payload names an unknown density class")
    classes = np.empty(chunks, np.uint8)
    np.floor_divide(pairs, CLASSES, out=classes[0::2])
    np.remainder(pairs, CLASSES, out=classes[1::2])
    table = scratch("coarse table", CLASSES << lanes.COARSE_BITS, np.uint32)
    for klass, row in enumerate(_frequencies(np.array(shares, np.uint16))):
        begin = klass << lanes.COARSE_BITS
        fill_decoder(row, lanes.COARSE_BITS, table[begin : begin + (1 << lanes.COARSE_BITS)])
    states = pieces.take(_STATES_BYTES).copy().view(np.uint32)
    words, at = stream(pieces.rest())
    packed = np.empty(size, np.uint8)
    left = lanes.pull_coarse(
        states, np.repeat(classes, STRIPE), table, words, at, size // lanes.LANES, packed
    )
    check_end(states, left)
    return packed, classes


def stream(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint16], int]:
    """Words with the slack that `pull_*` needs before them, and the position after the last."""
    if data.size % 2:
        raise CodecError("a residual payload has half a word")
    words = scratch("words", lanes.STEP_WORDS + data.size // 2, np.uint16)
    words[lanes.STEP_WORDS :].view(np.uint8)[:] = data
    return words, words.size


def check_end(states: npt.NDArray[np.uint32], position: int) -> None:
    """A stream that was decoded rightly ends where it began, with the states it began with."""
    if position != lanes.STEP_WORDS or (states != lanes.INITIAL_STATE).any():
        raise CodecError("a residual payload is damaged")
