"""Layer 1 of `residual`: all that its base and layer 0 do not tell, so that every bit is restored.

Payload, little-endian:

    u8   float format (floats.py)        u8   flags: 1 split tables, 2 stored
    u8   pivot exponent                  u8   bytes after the last whole weight, 0..3
    u32  nibbles of tables               u32 x 2  lengths of the two low byte planes (float32 only)
    the nibbles, two to a byte; 64 u32 rANS states; u16 words; low planes; trailing bytes

A block that would not shrink is stored as it is after the first four bytes.
"""

import struct
from collections.abc import Sequence
from math import frexp
from typing import Any

import numpy as np

from mergepipe.codecs import exact_kernels, frames, lanes, tables
from mergepipe.codecs.coarse import decode_coarse
from mergepipe.codecs.exact_tables import MOST_NIBBLES, exact_decoder, exact_encoder
from mergepipe.codecs.floats import BY_CODE, FloatFormat
from mergepipe.codecs.marks import Marks
from mergepipe.codecs.pieces import Pieces, octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.stream import STATES_BYTES, check_end, new_states, states_of, words_of
from mergepipe.codecs.trits import unpack_into
from mergepipe.codecs.weights import Weights, upper_halves
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError

# The spacing of floats at the pivot is at most this part of the mean large change: finer bits are
# noise, and are stored rather than modelled.
_STEPS_OF_MAGNITUDE_LOG2 = 3
_SPLIT, _STORED = 1, 2
_FIXED = struct.Struct("<BBBB")
_LENGTHS = struct.Struct("<III")
_ENTRIES = (exact_kernels.ROWS + 1) * exact_kernels.ROW


def _pivot(magnitude: float, format_: FloatFormat) -> int:
    """The exponent (as stored) at which floats are a fixed part of the magnitude apart."""
    exponent = frexp(magnitude)[1] - 1 - _STEPS_OF_MAGNITUDE_LOG2 if magnitude else -1000
    return min(max(exponent + format_.bias + format_.mantissa_bits, 1), format_.largest_exponent)


def encode_exact(marks: Marks, workspace: Workspace) -> bytes:
    """The payload of a block whose coarse layer is that of `marks`."""
    weights, trits = marks.weights, marks.trits
    width, pivot = weights.format.mantissa_bits, _pivot(marks.magnitude, weights.format)
    index, bits, cut_bits = (
        workspace.array(name, trits.size, np.uint16) for name in ("index", "bits", "cut bits")
    )
    bit_counts, cut_counts = (
        workspace.array(name, trits.size, np.uint8) for name in ("bit counts", "cut counts")
    )
    counts = np.zeros(2 * _ENTRIES, np.uint32)
    exact_kernels.model(
        weights.tuned,
        weights.base,
        trits,
        marks.classes,
        width,
        pivot,
        index,
        bits,
        bit_counts,
        cut_bits,
        cut_counts,
        counts,
    )
    nibbles = workspace.array("nibbles", MOST_NIBBLES, np.uint8)
    table = np.empty(_ENTRIES, np.uint32)
    used, split = divmod(exact_encoder(counts, nibbles, table), 2)
    described = np.empty((used + 1) // 2, np.uint8)
    tables.pack_nibbles(nibbles[:used], described)
    states = new_states()
    words = workspace.array("words", 3 * trits.size + lanes.LANES, np.uint16)
    written = exact_kernels.push(
        states, index, bits, bit_counts, cut_bits, cut_counts, table, words
    )
    low = encode_low(weights)
    payload = b"".join(
        (
            _FIXED.pack(weights.format.code, split * _SPLIT, pivot, len(weights.tail)),
            _LENGTHS.pack(used, *map(len, low)),
            described.data,
            states.data,
            words[:written].data,
            *low,
            weights.tail,
        )
    )
    own = weights.tuned if weights.tuned_wide is None else weights.tuned_wide
    if len(payload) < own.nbytes + len(weights.tail) + _FIXED.size:
        return payload
    head = _FIXED.pack(weights.format.code, _STORED, 0, 0)
    return b"".join((head, own.data, weights.tail))


def encode_low(weights: Weights) -> tuple[bytes, bytes]:
    """The low bytes of float32 as planes of the XOR with the base's: a frame, or as they are."""
    if weights.tuned_wide is None:
        return b"", b""
    low = (weights.tuned_wide ^ weights.base_wide).view(np.uint8)
    planes = []
    for k in range(2):
        plane = low[k::4].tobytes()
        frame = frames.compress(plane, 1)
        planes.append(frame if len(frame) < len(plane) else plane)
    return planes[0], planes[1]


def decode_exact(layers: Sequence[Buffer], base: Any, out: Any, workspace: Workspace) -> None:
    """Decode both layers into `out`, uint8 as `base` is. Raises CodecError."""
    pieces = Pieces(layers[1])
    code, flags, pivot, tail = _FIXED.unpack(pieces.take(_FIXED.size).tobytes())
    format_ = BY_CODE.get(code)
    if format_ is None or flags > _STORED or base.size != out.size:
        raise CodecError(f"unknown exact layout {code}.{flags}")
    if flags == _STORED:
        body = pieces.rest()
        if body.size != out.size:
            raise CodecError(f"a stored block of {body.size} bytes, {out.size} wanted")
        out[:] = body
        return
    count, rest = divmod(out.size, format_.width_bytes)
    if tail != rest or not 1 <= pivot <= format_.largest_exponent:
        raise CodecError(f"{tail} bytes after whole weights, a pivot of {pivot}")
    last = pieces.take_last(tail)
    used, *low_lengths = _LENGTHS.unpack(pieces.take(_LENGTHS.size).tobytes())
    if format_.width_bytes == 2 and any(low_lengths):
        raise CodecError("a 16-bit float has no low planes")
    second_low, first_low = (pieces.take_last(length) for length in reversed(low_lengths))
    described = pieces.take(
        (used + 1) // 2
    )  # first: there is as much, and no more is made room for
    nibbles = np.empty(used, np.uint8)
    tables.unpack_nibbles(described, nibbles)
    table = workspace.array("exact table", exact_kernels.ROWS + 1 << lanes.EXACT_BITS, np.uint32)
    if not exact_decoder(nibbles, flags, table):
        raise CodecError("damaged tables in an exact payload")
    states = states_of(pieces.take(STATES_BYTES))
    data = pieces.rest()
    packed, classes = decode_coarse(layers[0], count, workspace)
    trits = workspace.array("trits", packed.size * 5, np.uint8)
    unpack_into(packed, trits)
    words, at = words_of(data, workspace)
    whole = count * format_.width_bytes
    body = out[:whole]
    if format_.width_bytes == 4:
        upper_base = upper_halves(
            "base upper", workspace.elements("base", base[:whole], np.uint32), workspace
        )
        upper = workspace.array("out upper", count, np.uint16)
    else:
        upper_base = workspace.elements("base", base[:whole], np.uint16)
        view = body.view(np.uint16)
        upper = view if view.flags.aligned else workspace.array("out upper", count, np.uint16)
    width = format_.mantissa_bits
    left = exact_kernels.pull(
        states, trits, classes, upper_base, flags, width, pivot, table, words, at, upper
    )
    check_end(states, left)
    if format_.width_bytes == 4:
        for k, low in enumerate((first_low, second_low)):
            plane = low if low.size == count else octets(frames.decompress(low.data, count))
            np.bitwise_xor(plane, base[k:whole:4], out=body[k::4])
        body.view(np.uint16)[1::2] = upper
    elif not view.flags.aligned:
        view[:] = upper
    out[whole:] = last
