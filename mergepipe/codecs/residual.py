"""`residual`: a block as its distance from the base block, in two layers.

Layer 0 (coarse.py) says of every weight whether its change is among the block's largest, and which
way: a merge under a budget reads that alone. Layer 1 is all that is left (exact.py):

    u8   float format (floats.py)        u8   flags: 1 split tables, 2 stored
    u8   pivot exponent                  u8   bytes after the last whole weight, 0..3
    u32  nibbles of tables               u32 x 2  lengths of the two low byte planes (float32 only)
    the nibbles, two to a byte; 64 u32 rANS states; u16 words; low planes; trailing bytes

A block that would not shrink is stored as it is after the first four bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs import exact, frames, lanes, survey, tables
from mergepipe.codecs.coarse import (
    CoarseHead,
    check_end,
    decode_coarse,
    encode_coarse,
    stream,
)
from mergepipe.codecs.floats import BY_CODE, FORMATS, FloatFormat, float_format
from mergepipe.codecs.pieces import Pieces
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.scratch import elements, octets, scratch
from mergepipe.codecs.trits import CHUNK, classify_into, pack_into, packed_length, unpack_into
from mergepipe.dtypes import DType
from mergepipe.errors import CodecError

LARGE_SHARE = 0.35
# The spacing of floats at the pivot is at most this part of the mean large change: finer bits are
# noise, and are stored rather than modelled.
_STEPS_OF_MAGNITUDE_LOG2 = 3
_SPLIT, _STORED = 1, 2
_FIXED = struct.Struct("<BBBB")
_LENGTHS = struct.Struct("<III")
_ROWS = exact.ROWS + 1


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """What one pass over a block and its base tells of `d = x - base` (float32).

    count       weights                     changed     of them, with other bits than the base's
    large       non-zero trits              threshold   least |d| of a large change
    magnitude   mean |d| of large changes   largest     greatest |d|
    energy      sum of d squared            captured    energy less that of d minus its estimate
    (sums are float64 over `keys`, rising sizes last, an inexact |d| as the middle of its key: within
    1e-4 of the sum over weights, and the same on every machine)
    keys, exact, inexact  the |d| that occur, by their upper 16 bits as float32 (rising): how many
                have no further bits, and how many do
    packed      trits, as in trits.py
    Infinite and NaN changes count as zero ones.
    """

    count: int
    changed: int
    large: int
    threshold: float
    magnitude: float
    largest: float
    energy: float
    captured: float
    keys: npt.NDArray[np.uint16]
    exact: npt.NDArray[np.uint32]
    inexact: npt.NDArray[np.uint32]
    packed: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Block:
    """A block and its base as whole weights: upper 16 bits, all 32 bits if there are, the tail."""

    format: FloatFormat
    tuned: Any
    base: Any
    tuned_wide: Any
    base_wide: Any
    tail: bytes


def _open(raw: Buffer, base: Buffer, dtype: DType) -> _Block:
    format_ = float_format(dtype)
    x, b = octets(raw), octets(base)
    whole = x.size // format_.width_bytes * format_.width_bytes
    tail = x[whole:].tobytes()
    if format_.width_bytes == 4:
        wide = elements("tuned", x[:whole], np.uint32), elements("base", b[:whole], np.uint32)
        upper = [scratch(n, whole // 4, np.uint16) for n in ("tuned upper", "base upper")]
        for source, out in zip(wide, upper, strict=True):
            np.right_shift(source, 16, out=out, casting="unsafe")
        return _Block(format_, upper[0], upper[1], wide[0], wide[1], tail)
    halves = elements("tuned", x[:whole], np.uint16), elements("base", b[:whole], np.uint16)
    return _Block(format_, halves[0], halves[1], None, None, tail)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the first pass found; `found` as in survey.choose_threshold."""

    counts: Any
    uppers: Any
    largest: int
    key: int
    found: Any

    @property
    def magnitude(self) -> float:
        """Mean size of a large change, a float32 value."""
        large, total, _ = self.found
        return float(np.float32(total / large)) if large else 0.0


def _survey(block: _Block, share: float) -> _Survey:
    counts = scratch("keys", survey.COUNTS, np.uint32)
    counts[:] = 0
    uppers = scratch("uppers", block.tuned.size, np.uint16)
    if block.tuned_wide is not None:
        largest = survey.survey_singles(block.tuned_wide, block.base_wide, uppers, counts)
    else:
        width = block.format.mantissa_bits
        largest = survey.survey_halves(block.tuned, block.base, width, uppers, counts)
    found = np.zeros(3)
    wanted = int(share * block.tuned.size)
    key = survey.choose_threshold(counts, largest, wanted, found)
    return _Survey(counts, uppers, largest, key, found)


def _real(bits: int) -> float:
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _pivot(magnitude: float, format_: FloatFormat) -> int:
    """The exponent (as stored) at which floats are a fixed part of the magnitude apart."""
    bits = int(np.array([magnitude], np.float32).view(np.uint32)[0])
    exponent = (bits >> 23) - 127 - _STEPS_OF_MAGNITUDE_LOG2
    return min(max(exponent + format_.bias + format_.mantissa_bits, 1), format_.largest_exponent)


def _trits(surveyed: _Survey) -> tuple[Any, Any, Any]:
    """Trits, packed trits and classes of a block."""
    size = surveyed.uppers.size
    packed = np.empty(packed_length(size), np.uint8)
    trits = scratch("trits", packed.size * 5, np.uint8)
    survey.trits_into(surveyed.uppers, surveyed.key, trits)
    trits[size:] = 0
    pack_into(trits, packed)
    classes = np.empty(trits.size // CHUNK, np.uint8)
    classify_into(trits, classes)
    return trits, packed, classes


def _best_tables(counts: Any) -> tuple[int, Any, Any]:
    """Flags, the nibbles that describe the cheaper set of tables, and a row of it for each of ROWS."""
    best = None
    for flags in (0, _SPLIT):
        per_class = counts[: exact.ROWS].reshape(-1, exact.KINDS, tables.EXACT_ROW)
        wanted = counts[: exact.ROWS] if flags else per_class.sum(0)
        rows = wanted.astype(np.uint32)
        nibbles = np.empty(rows.shape[0] * (3 * tables.EXACT_ROW + 1), np.uint8)
        used = tables.describe(rows, lanes.EXACT_BITS, nibbles)
        cost = tables.cost_of(wanted.astype(np.uint32), rows) + 4 * used
        if best is None or cost < best[0]:
            best = cost, flags, nibbles[:used], rows
    assert best is not None
    return best[1:]


def _all_rows(rows: Any) -> Any:
    """Frequencies of every row, the null row's last: one symbol that costs nothing."""
    null = np.zeros((1, tables.EXACT_ROW), np.uint32)
    null[0, 0] = 1 << lanes.EXACT_BITS
    repeats = exact.ROWS // rows.shape[0]
    return np.concatenate([np.tile(rows, (repeats, 1)), null])


def _encode_exact(block: _Block, trits: Any, classes: Any, magnitude: float) -> bytes:
    format_ = block.format
    pivot = _pivot(magnitude, format_)
    size = trits.size
    index, bits, cut_bits = (scratch(n, size, np.uint16) for n in ("index", "bits", "cut bits"))
    bit_counts, cut_counts = (scratch(n, size, np.uint8) for n in ("bit counts", "cut counts"))
    counts = np.zeros((2, _ROWS, tables.EXACT_ROW), np.uint32)
    exact.model(
        block.tuned,
        block.base,
        trits,
        classes,
        format_.mantissa_bits,
        pivot,
        index,
        bits,
        bit_counts,
        cut_bits,
        cut_counts,
        counts.ravel(),
    )
    flags, nibbles, rows = _best_tables(counts.sum(0, dtype=np.uint32))
    table = np.empty(_ROWS * tables.EXACT_ROW, np.uint32)
    tables.fill_encoder_rows(_all_rows(rows), lanes.EXACT_BITS, table)
    states = np.full(lanes.LANES, lanes.INITIAL_STATE, np.uint32)
    words = scratch("words", 3 * size + lanes.LANES, np.uint16)
    used = exact.push(states, index, bits, bit_counts, cut_bits, cut_counts, table, words)
    planes = _encode_low(block)
    return b"".join(
        (
            _FIXED.pack(format_.code, flags, pivot, len(block.tail)),
            _LENGTHS.pack(nibbles.size, *(len(plane) for plane in planes)),
            tables.pack_nibbles(nibbles),
            states.tobytes(),
            words[:used].tobytes(),
            *planes,
            block.tail,
        )
    )


def _encode_low(block: _Block) -> tuple[bytes, bytes]:
    """The low two bytes of float32 as planes of the XOR with the base's: a frame, or as they are."""
    if block.tuned_wide is None:
        return b"", b""
    low = (block.tuned_wide ^ block.base_wide).view(np.uint8)
    planes = []
    for k in range(2):
        plane = low[k::4].tobytes()
        frame = frames.compress(plane, 1)
        planes.append(frame if len(frame) < len(plane) else plane)
    return planes[0], planes[1]


class Residual:
    """Two layers: large changes by their sign, then the rest of every weight."""

    name = "residual"
    tag = 3
    version = 1
    layers = 2
    needs_base = True

    def __init__(self, large_share: float = LARGE_SHARE) -> None:
        self.large_share = large_share

    def supports(self, dtype: DType) -> bool:
        """bf16, fp16 and float32."""
        return dtype in FORMATS

    def encode(self, raw: Buffer, base: Buffer | None, dtype: DType) -> tuple[Buffer, ...]:
        """Coarse and exact payload."""
        return self._encode(raw, base, dtype)[0]

    def encode_with_statistics(
        self, raw: Buffer, base: Buffer, dtype: DType
    ) -> tuple[tuple[Buffer, ...], BlockStatistics]:
        """What `encode` returns, and the statistics that the same passes give."""
        layers, block, surveyed, packed = self._encode(raw, base, dtype)
        return layers, _statistics(block, surveyed, packed)

    def _encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType
    ) -> tuple[tuple[Buffer, ...], _Block, _Survey, Any]:
        if base is None:
            raise CodecError("residual needs the base block")
        block = _open(raw, base, dtype)
        surveyed = _survey(block, self.large_share)
        trits, packed, classes = _trits(surveyed)
        head = CoarseHead(surveyed.magnitude, _real(surveyed.key << 16))
        coarse = encode_coarse(head, packed, classes)
        payload = _encode_exact(block, trits, classes, surveyed.magnitude)
        if len(payload) >= len(octets(raw)) + _FIXED.size:
            payload = _FIXED.pack(block.format.code, _STORED, 0, 0) + octets(raw).tobytes()
        return (coarse, payload), block, surveyed, packed

    def decode_into(self, layers: Sequence[Buffer], base: Buffer | None, out: memoryview) -> None:
        """Raises CodecError for payloads that are not a block of `len(out)` bytes."""
        if len(layers) != 2 or base is None:
            raise CodecError("residual needs two layers and the base block")
        _decode_exact(layers, octets(base), octets(out))


def analyse(
    raw: Buffer, base: Buffer, dtype: DType, large_share: float = LARGE_SHARE
) -> BlockStatistics:
    """The statistics of a block against a base without encoding it."""
    block = _open(raw, base, dtype)
    surveyed = _survey(block, large_share)
    _, packed, _ = _trits(surveyed)
    return _statistics(block, surveyed, packed)


def _statistics(block: _Block, surveyed: _Survey, packed: Any) -> BlockStatistics:
    counts = surveyed.counts
    keys = np.flatnonzero(counts[: survey.KEYS] | counts[survey.KEYS : 2 * survey.KEYS])
    large, _, energy = surveyed.found
    magnitude = surveyed.magnitude
    return BlockStatistics(
        count=block.tuned.size,
        changed=int(np.count_nonzero(block.tuned != block.base))
        if block.tuned_wide is None
        else int(np.count_nonzero(block.tuned_wide != block.base_wide)),
        large=int(large),
        threshold=_real(surveyed.key << 16),
        magnitude=magnitude,
        largest=_real(surveyed.largest),
        energy=float(energy),
        captured=float(large) * magnitude * magnitude,
        keys=keys.astype(np.uint16),
        exact=counts[keys].copy(),
        inexact=counts[keys + survey.KEYS].copy(),
        packed=packed,
    )


def _decode_exact(layers: Sequence[Buffer], base: Any, out: Any) -> None:
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
    nibble_count, *low_lengths = _LENGTHS.unpack(pieces.take(_LENGTHS.size).tobytes())
    if format_.width_bytes == 2 and any(low_lengths):
        raise CodecError("a 16-bit float has no low planes")
    lows = [pieces.take_last(length) for length in reversed(low_lengths)][::-1]
    nibbles = tables.unpack_nibbles(pieces.take((nibble_count + 1) // 2), nibble_count)
    states = pieces.take(4 * lanes.LANES).copy().view(np.uint32)
    data = pieces.rest()
    rows = np.zeros((exact.ROWS if flags else exact.KINDS, tables.EXACT_ROW), np.uint32)
    if not tables.read_description(nibbles, lanes.EXACT_BITS, rows):
        raise CodecError("damaged tables in an exact payload")
    packed, classes = decode_coarse(layers[0], count)
    trits = scratch("trits", packed.size * 5, np.uint8)
    unpack_into(packed, trits)
    table = scratch("exact table", _ROWS << lanes.EXACT_BITS, np.uint32)
    tables.fill_decoder_rows(rows, lanes.EXACT_BITS, table)
    null = exact.NULL_ROW << lanes.EXACT_BITS
    tables.fill_decoder(np.zeros(1, np.uint32), lanes.EXACT_BITS, table[null:])
    words, at = stream(data)
    upper_base, upper_out = _upper_halves(base, out, format_, count)
    left = exact.pull(
        states,
        trits,
        classes,
        upper_base,
        1 if flags else 0,
        format_.mantissa_bits,
        pivot,
        table,
        words,
        at,
        upper_out,
    )
    check_end(states, left)
    _finish(upper_out, lows, base, out, format_, count)
    if tail:
        out[-tail:] = last


def _upper_halves(base: Any, out: Any, format_: FloatFormat, count: int) -> tuple[Any, Any]:
    """The base's upper 16 bits, and where to put the block's: `out` itself where that fits."""
    whole = count * format_.width_bytes
    if format_.width_bytes == 4:
        upper = scratch("base upper", count, np.uint16)
        wide = elements("base", base[:whole], np.uint32)
        np.right_shift(wide, 16, out=upper, casting="unsafe")
        return upper, scratch("out upper", count, np.uint16)
    halves = elements("base", base[:whole], np.uint16)
    aligned = out.ctypes.data % 2 == 0
    return halves, out[:whole].view(np.uint16) if aligned else scratch("out", count, np.uint16)


def _finish(
    upper: Any, lows: list[Any], base: Any, out: Any, format_: FloatFormat, count: int
) -> None:
    """Move decoded halves to `out`, with the low planes of float32."""
    whole = count * format_.width_bytes
    if format_.width_bytes == 2:
        if out.ctypes.data % 2:
            out[:whole] = upper.view(np.uint8)
        return
    for k, low in enumerate(lows):
        plane = low if low.size == count else octets(frames.decompress(low.data, count))
        np.bitwise_xor(plane, base[k:whole:4], out=out[k:whole:4])
    halves = upper.view(np.uint8)
    out[2:whole:4] = halves[0::2]
    out[3:whole:4] = halves[1::2]
