"""Layer 0 of `residual`: which weights changed much, which way, and how much on average.

Payload, little-endian (docs/format-codecs.md says why):

    u8   version of the layout, 1        u8   1 if trits follow, 0 if every trit is 0
    f32  magnitude: mean size of a large change      f32  threshold: size from which it is large
    4 x 6 u16  for classes 1..4: share of bytes with 0..5 non-zero trits, of 65535
    u32  length of the class frame       zstd frame: two chunks' classes a byte, 5 * first + second
    64 u32  rANS states                  u16  words, to the end
"""

import struct
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs import frames, lanes
from mergepipe.codecs.coarse_tables import ROW, SHARES, coarse_decoder, model_coarse
from mergepipe.codecs.pieces import Pieces, octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.stream import STATES_BYTES, check_end, new_states, states_of, words_of
from mergepipe.codecs.trits import CLASSES, STRIPE, packed_length, pair_classes, part_classes
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError

LAYOUT = 1
_HEAD = struct.Struct("<BBff")


class CoarseHead(Struct, frozen=True):
    """magnitude: the estimate of a large change. threshold: the least one. Float32 values."""

    magnitude: float
    threshold: float


def encode_coarse(
    head: CoarseHead,
    packed: npt.NDArray[np.uint8],
    classes: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> bytes:
    """The payload. packed: as in trits.py. classes: one to a chunk of packed trits."""
    if not classes.any():
        return write_head(head, LAYOUT, 0)
    index = workspace.array("index", packed.size, np.uint16)
    shares = np.empty(SHARES, np.uint16)
    entries = np.empty(CLASSES * ROW, np.uint32)
    model_coarse(packed, classes, index, shares, entries)
    begin = write_head(head, LAYOUT, 1)
    return write_coded(begin, shares, classes, index, entries, workspace)


def coarse_head(payload: Buffer) -> CoarseHead:
    """Magnitude and threshold, without decoding. Raises CodecError."""
    return read_head(Pieces(payload), LAYOUT)[0]


def write_head(head: CoarseHead, layout: int, coded: int) -> bytes:
    """How every layout begins."""
    return _HEAD.pack(layout, coded, head.magnitude, head.threshold)


def read_head(pieces: Pieces, wanted: int) -> tuple[CoarseHead, int]:
    """Undo `write_head` of the layout `wanted`. Raises CodecError."""
    layout, coded, magnitude, threshold = _HEAD.unpack(pieces.take(_HEAD.size).tobytes())
    if layout != wanted or coded > 1:
        raise CodecError(f"unknown coarse layout {layout}.{coded}")
    if not (0 <= magnitude < inf and 0 <= threshold < inf):
        raise CodecError(f"a coarse magnitude of {magnitude}, threshold {threshold}")
    return CoarseHead(magnitude, threshold), coded


def write_coded(
    begin: bytes,
    shares: npt.NDArray[np.uint16],
    classes: npt.NDArray[np.uint8],
    index: npt.NDArray[np.uint16],
    entries: npt.NDArray[np.uint32],
    workspace: Workspace,
) -> bytes:
    """A payload of any layout: what stands before the shares, and all that follows.

    index: one to a packed byte, a row and symbol of the encoder's table `entries`.
    """
    states = new_states()
    words = workspace.array("words", index.size + lanes.LANES, np.uint16)
    used = lanes.push_coarse(states, index, entries, words, 0, index.size // lanes.LANES)
    parts = begin, shares.tobytes(), write_classes(classes), states.tobytes(), words[:used].data
    return b"".join(parts)


def read_coded(
    pieces: Pieces,
    rows: Any,
    table: npt.NDArray[np.uint32],
    symbols: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> None:
    """Undo the end of `write_coded` into all of `symbols`; `rows`: of `table`, one to each.

    Raises CodecError.
    """
    states = states_of(pieces.take(STATES_BYTES))
    words, at = words_of(pieces.rest(), workspace)
    steps = symbols.size // lanes.LANES
    check_end(states, lanes.pull_coarse(states, rows, table, words, at, steps, symbols))


def write_classes(classes: npt.NDArray[np.uint8]) -> bytes:
    """The length of a frame, and the frame: two chunks' classes a byte."""
    pairs = np.empty(classes.size // 2, np.uint8)
    pair_classes(classes, pairs)
    frame = frames.compress(pairs.data, 1)
    return len(frame).to_bytes(4, "little") + frame


def read_classes(pieces: Pieces, chunks: int) -> tuple[npt.NDArray[np.uint8], Any]:
    """Undo `write_classes`: one to a chunk, and one to a packed byte. Raises CodecError."""
    pairs = octets(frames.decompress(pieces.take(pieces.number()).data, chunks // 2))
    classes, rows = np.empty(chunks, np.uint8), np.empty(chunks * STRIPE, np.uint8)
    if not part_classes(pairs, classes, rows):
        raise CodecError("a coarse payload names an unknown density class")
    return classes, rows


def coarse_symbols(payload: Buffer, count: int, workspace: Workspace) -> npt.NDArray[np.uint8]:
    """The packed trits (trits.py) of a block of `count` weights. Raises CodecError."""
    return decode_coarse(payload, count, workspace)[0]


def decode_coarse(
    payload: Buffer, count: int, workspace: Workspace
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Packed trits and the class of every chunk. Raises CodecError."""
    pieces = Pieces(payload)
    _, coded = read_head(pieces, LAYOUT)
    size = packed_length(count)
    chunks = size // STRIPE
    if not coded:
        if pieces.rest().size:
            raise CodecError("a coarse payload without trits has bytes left over")
        return np.zeros(size, np.uint8), np.zeros(chunks, np.uint8)
    shares = pieces.take(2 * SHARES).copy().view(np.uint16)
    classes, rows = read_classes(pieces, chunks)
    table = workspace.array("coarse table", CLASSES << lanes.COARSE_BITS, np.uint32)
    coarse_decoder(shares, table)
    packed = np.empty(size, np.uint8)
    read_coded(pieces, rows, table, packed, workspace)
    return packed, classes
