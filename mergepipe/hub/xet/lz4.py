"""Chunks as xet packs them: LZ4 frames, and bytes of which every fourth stands together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergepipe.hub.errors import HubError
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import int64, read_only, uint8

_MAGIC = b"\x04\x22\x4d\x18"
_BLOCK_SIZES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_VERSION_BITS, _VERSION = 0xC0, 0x40
_BLOCK_SUMS, _CONTENT_SIZE, _CONTENT_SUM, _DICTIONARY = 0x10, 0x08, 0x04, 0x01
_PLAIN = 1 << 31
_GROUPS = 4


def unpack(packed: bytes, size: int) -> NDArray[np.uint8]:
    """The `size` bytes that a frame holds. Raises HubError for any other frame.

    Its check sums are left alone: whoever asks knows the content by a better one.
    """
    out = np.empty(size, np.uint8)
    if _unpack_into(packed, out) != size:
        raise HubError(400, "a chunk is not packed as LZ4 has it")
    return out


def regroup(grouped: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes of which those 0, 4, 8, ... stood first, then 1, 5, 9, ..., in order again."""
    out = np.empty_like(grouped)
    at = 0
    for group in range(_GROUPS):
        part = out[group::_GROUPS]
        part[:] = grouped[at : at + len(part)]
        at += len(part)
    return out


def _unpack_into(packed: bytes, out: NDArray[np.uint8]) -> int:
    """Bytes that were written; -1 for what is no frame, or holds more."""
    if len(packed) < 7 or packed[:4] != _MAGIC:
        return -1
    flags = packed[4]
    if flags & _VERSION_BITS != _VERSION or flags & _DICTIONARY:
        return -1
    most = _BLOCK_SIZES.get(packed[5] >> 4 & 7, 0)
    at = 7 + (8 if flags & _CONTENT_SIZE else 0)
    source = np.frombuffer(packed, np.uint8)
    written = 0
    while True:
        word = int.from_bytes(packed[at : at + 4], "little")
        if at + 4 > len(packed):
            return -1
        at += 4
        if not word:
            break
        length = word & ~_PLAIN
        if length > most or at + length > len(packed):
            return -1
        block = source[at : at + length]
        if word & _PLAIN:
            if written + length > len(out):
                return -1
            out[written : written + length] = block
            written += length
        else:
            written = int(_unpack_block(block, out, written))
            if written < 0:
                return -1
        at += length + (4 if flags & _BLOCK_SUMS else 0)
    if at + (4 if flags & _CONTENT_SUM else 0) != len(packed):
        return -1
    return written


@kernel(int64(read_only(uint8[::1]), uint8[::1], int64))
def _unpack_block(source: Any, out: Any, start: Any) -> Any:
    """Write what a block holds to `out` from `start` on; where that ends, -1 for no block.

    What came before `start` is what the block may repeat.
    """
    at: Any = 0
    to = start
    end, room = len(source), len(out)
    while at < end:
        token = np.int64(source[at])
        at += 1
        length = token >> 4
        if length == 15:
            while True:
                if at >= end:
                    return -1
                more = np.int64(source[at])
                at += 1
                length += more
                if more != 255:
                    break
        if length > end - at or length > room - to:
            return -1
        for each in range(length):
            out[to + each] = source[at + each]
        at += length
        to += length
        if at == end:
            return to
        if end - at < 2:
            return -1
        back = np.int64(source[at]) | (np.int64(source[at + 1]) << 8)
        at += 2
        length = token & 15
        if length == 15:
            while True:
                if at >= end:
                    return -1
                more = np.int64(source[at])
                at += 1
                length += more
                if more != 255:
                    break
        length += 4
        if back == 0 or back > to or length > room - to:
            return -1
        for each in range(length):
            out[to + each] = out[to - back + each]
        to += length
    return -1
