"""`split`: a block without a base. Exponents are entropy-coded; the rest is noise.

Symbols: bf16 and float32, the exponent; fp16, the upper byte; 8-bit types, the byte. The rest: bf16
and float32, sign and upper mantissa as one byte plane; then the lower bytes as planes. A plane is
stored as it is unless a frame of it is clearly shorter (weights that were once a narrower type).
Payload, little-endian:

    u8   kind: 1 bytes, 2 bf16, 3 fp16, 4 float32       u8   bit k: plane k is a frame
    u16  nibbles of the frequency table                 u32  length of each plane
    the nibbles, two to a byte; 64 u32 rANS states; the planes; u16 words;
    the bytes after the last element

One table serves a block; rANS and lanes are those of `residual` (lanes.py).
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from mergepipe.codecs import frames, lanes, tables
from mergepipe.codecs.pieces import Pieces, octets, only_layer
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.stream import STATES_BYTES, check_end, new_states, states_of, words_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, F16, F32, DType
from mergepipe.errors import CodecError
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import int64, read_only, uint8, uint16, uint32, void

_BYTES, _BF16, _F16, _F32 = 1, 2, 3, 4
_KINDS = {BF16: _BF16, F16: _F16, F32: _F32}
_WIDTHS = {_BYTES: 1, _BF16: 2, _F16: 2, _F32: 4}
_HEAD = struct.Struct("<BBH")
_NULL = 256  # the entry of elements past the end: no cost
_SAMPLE_BYTES = 1 << 14
_WORTH = 0.95  # a frame is kept if it is below this share of its plane: decoding it costs time

_U8 = uint8[::1]
_U16 = uint16[::1]
_U32 = uint32[::1]
_READ_U8 = read_only(uint8[::1])
_READ_U16 = read_only(uint16[::1])
_READ_U32 = read_only(uint32[::1])
_u16, _u32 = np.uint16, np.uint32


@kernel(void(_READ_U16, int64, _U8, _U8))
def _part_halves(values: Any, kind: Any, symbols: Any, rest: Any) -> None:
    if kind == _BF16:
        for i in range(symbols.size):
            symbols[i] = _u16(values[i] >> _u16(7))
        for i in range(symbols.size):
            high = _u16(_u16(values[i] >> _u16(8)) & _u16(0x80))
            rest[i] = _u16(high | _u16(values[i] & _u16(0x7F)))
    else:
        for i in range(symbols.size):
            symbols[i] = _u16(values[i] >> _u16(8))
        for i in range(symbols.size):
            rest[i] = values[i]


@kernel(void(_READ_U8, _READ_U8, int64, _U16))
def _join_halves(symbols: Any, rest: Any, kind: Any, out: Any) -> None:
    if kind == _BF16:
        for i in range(out.size):
            low = _u16(rest[i])
            sign = _u16(_u16(low & _u16(0x80)) << _u16(8))
            middle = _u16(_u16(symbols[i]) << _u16(7))
            out[i] = _u16(_u16(sign | middle) | _u16(low & _u16(0x7F)))
    else:
        for i in range(out.size):
            out[i] = _u16(_u16(_u16(symbols[i]) << _u16(8)) | _u16(rest[i]))


@kernel(void(_READ_U32, _U8, _U8, _U8, _U8))
def _part_singles(values: Any, symbols: Any, high: Any, middle: Any, low: Any) -> None:
    for i in range(symbols.size):
        symbols[i] = _u32(values[i] >> _u32(23))
    for i in range(symbols.size):
        sign = _u32(_u32(values[i] >> _u32(24)) & _u32(0x80))
        high[i] = _u32(sign | _u32(_u32(values[i] >> _u32(16)) & _u32(0x7F)))
    for i in range(symbols.size):
        middle[i] = _u32(values[i] >> _u32(8))
    for i in range(symbols.size):
        low[i] = values[i]


@kernel(void(_READ_U8, _READ_U8, _READ_U8, _READ_U8, _U32))
def _join_singles(symbols: Any, high: Any, middle: Any, low: Any, out: Any) -> None:
    for i in range(out.size):
        top = _u32(high[i])
        bits = _u32(_u32(_u32(top & _u32(0x80)) << _u32(24)) | _u32(_u32(symbols[i]) << _u32(23)))
        bits = _u32(bits | _u32(_u32(top & _u32(0x7F)) << _u32(16)))
        out[i] = _u32(_u32(bits | _u32(_u32(middle[i]) << _u32(8))) | _u32(low[i]))


@kernel(void(_READ_U8, _U16, _U32))
def _index(symbols: Any, index: Any, counts: Any) -> None:
    """Table entries of the symbols, null past their end; counts them in four tables of 256."""
    for i in range(symbols.size):
        index[i] = symbols[i]
    index[symbols.size :] = _NULL
    whole = symbols.size // 4 * 4
    for i in range(0, whole, 4):
        counts[np.int64(symbols[i])] += np.uint32(1)
        counts[256 + np.int64(symbols[i + 1])] += np.uint32(1)
        counts[512 + np.int64(symbols[i + 2])] += np.uint32(1)
        counts[768 + np.int64(symbols[i + 3])] += np.uint32(1)
    for i in range(whole, symbols.size):
        counts[np.int64(symbols[i])] += np.uint32(1)


def _padded(count: int) -> int:
    return -(-count // lanes.LANES) * lanes.LANES


def _squeeze(plane: Any, level: int) -> tuple[bytes, bool]:
    """A plane's frame if a sample of it compresses and it is worth it, else the plane."""
    if plane.size > 2 * _SAMPLE_BYTES:
        middle = plane.size // 2
        sample = plane[middle : middle + _SAMPLE_BYTES]
        if len(frames.compress(sample.data, 1)) > _WORTH * sample.size:
            return plane.tobytes(), False
    frame = frames.compress(plane.data, level)
    kept = len(frame) < _WORTH * plane.size
    return (frame, True) if kept else (plane.tobytes(), False)


class Split:
    """Exponents by rANS, the rest as it is or compresses."""

    name = "split"
    tag = 4
    version = 1
    layers = 1
    needs_base = False

    def __init__(self, level: int = 1) -> None:
        self.level = level

    def supports(self, dtype: DType) -> bool:
        """16-bit floats, float32, and whatever has 8 bits."""
        return dtype in _KINDS or dtype.bits == 8

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """One payload."""
        data = octets(raw)
        kind = _KINDS.get(dtype, _BYTES)
        width = _WIDTHS[kind]
        count = data.size // width
        symbols, *planes = (workspace.array(f"plane {k}", count, np.uint8) for k in range(width))
        body = data[: count * width]
        if kind == _BYTES:
            symbols = body
        elif kind == _F32:
            _part_singles(workspace.elements("tuned", body, np.uint32), symbols, *planes)
        else:
            _part_halves(workspace.elements("tuned", body, np.uint16), kind, symbols, planes[0])
        index = workspace.array("index", _padded(count), np.uint16)
        counts = np.zeros(1024, np.uint32)
        _index(symbols, index, counts)
        rows = counts.reshape(4, 256).sum(0, dtype=np.uint32)[None]
        nibbles = np.empty(3 * 256 + 1, np.uint8)
        used_nibbles = tables.describe(rows, lanes.COARSE_BITS, nibbles)
        table = np.zeros(_NULL + 1, np.uint32)
        tables.fill_encoder(rows[0], lanes.COARSE_BITS, table)
        table[_NULL] = 1 << lanes.COARSE_BITS << 16
        described = np.empty((used_nibbles + 1) // 2, np.uint8)
        tables.pack_nibbles(nibbles[:used_nibbles], described)
        states = new_states()
        words = workspace.array("words", index.size + lanes.LANES, np.uint16)
        used = lanes.push_coarse(states, index, table, words, 0, index.size // lanes.LANES)
        squeezed = [_squeeze(plane, self.level) for plane in planes]
        parts = (
            _HEAD.pack(kind, sum(f << k for k, (_, f) in enumerate(squeezed)), used_nibbles),
            *(len(plane).to_bytes(4, "little") for plane, _ in squeezed),
            described.data,
            states.data,
            *(plane for plane, _ in squeezed),
            words[:used].data,
            data[body.size :].tobytes(),
        )
        return (b"".join(parts),)

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Raises CodecError for a payload that is not a block of `len(out)` bytes."""
        pieces, target = Pieces(only_layer(layers, self.name)), octets(out)
        kind, framed, nibble_count = _HEAD.unpack(pieces.take(_HEAD.size).tobytes())
        width = _WIDTHS.get(kind)
        if width is None or framed >> (width - 1):
            raise CodecError(f"unknown split layout {kind}.{framed}")
        count, tail = divmod(target.size, width)
        last = pieces.take_last(tail)
        lengths = [pieces.number() for _ in range(width - 1)]
        described = pieces.take((nibble_count + 1) // 2)
        states = states_of(pieces.take(STATES_BYTES))
        planes = []
        for k, length in enumerate(lengths):
            plane = pieces.take(length)
            if framed >> k & 1:
                plane = octets(frames.decompress(plane.data, count))
            elif length != count:
                raise CodecError(f"a plane of {length} bytes, {count} wanted")
            planes.append(plane)
        nibbles = np.empty(nibble_count, np.uint8)
        tables.unpack_nibbles(described, nibbles)
        symbols = _pull(nibbles, states, pieces.rest(), count, workspace)
        body = target[: count * width]
        if kind == _BYTES:
            body[:] = symbols
        else:
            element = np.uint32 if kind == _F32 else np.uint16
            view = body.view(element)
            aligned = view.flags.aligned
            values = view if aligned else workspace.array("out", count, element)
            if kind == _F32:
                _join_singles(symbols, planes[0], planes[1], planes[2], values)
            else:
                _join_halves(symbols, planes[0], kind, values)
            if not aligned:
                view[:] = values
        target[body.size :] = last


def _pull(nibbles: Any, states: Any, data: Any, count: int, workspace: Workspace) -> Any:
    """Decode the symbols."""
    rows = np.zeros((1, 256), np.uint32)
    if not tables.read_description(nibbles, lanes.COARSE_BITS, rows):
        raise CodecError("a damaged table in a split payload")
    table = np.empty(2 << lanes.COARSE_BITS, np.uint32)
    tables.fill_decoder(rows[0], lanes.COARSE_BITS, table[: 1 << lanes.COARSE_BITS])
    null = table[1 << lanes.COARSE_BITS :]
    tables.fill_decoder(np.zeros(1, np.uint32), lanes.COARSE_BITS, null)
    size = _padded(count)
    which = workspace.array("rows", size, np.uint8)
    which[:count] = 0
    which[count:] = 1
    words, at = words_of(data, workspace)
    symbols = workspace.array("symbols", size, np.uint8)
    left = lanes.pull_coarse(states, which, table, words, at, size // lanes.LANES, symbols)
    check_end(states, left)
    return symbols[:count]
