"""A shard as it is uploaded: which chunks of which xorbs make which file.

    header    tag (32 bytes), version, length of a footer (8 bytes each)
    per file  name (32), flags, number of parts (4 each), 8 bytes of nothing
              parts: name of a xorb (32), flags, bytes, first chunk, end (4 each)
              where the flags say so, as many entries of 48 bytes that prove who has the chunks
              where the flags say so, the file's SHA-256 (32), 16 bytes of nothing
    a header whose name is all ones

What follows tells of the xorbs, which this hub knows, having them. Numbers: least byte first.
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mergepipe.bytestore.protocol import Buffer
from mergepipe.hub.errors import HubError
from mergepipe.hub.xet.hashes import to_hex

LARGEST_BYTES = 128 << 20
_TAG = b"HFRepoMetaData\0" + bytes(
    (85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169)
)
_VERSION = 2
_START = struct.Struct("<32sQQ")
_ENTRY = struct.Struct("<32s4I")
_END = b"\xff" * 32
_PROVEN, _HASHED = 1 << 31, 1 << 30
_PARTS = np.dtype(
    [("xorb", "V32"), ("flags", "<u4"), ("size", "<u4"), ("first", "<u4"), ("end", "<u4")]
)


class Part(Struct, frozen=True):
    """Chunks `first` to `end` of a xorb, which hold `size` bytes together."""

    xorb: bytes
    size: int
    first: int
    end: int


class ShardFile(Struct, frozen=True):
    """A file by the SHA-256 of its bytes (hex), and its size in bytes."""

    sha256: str
    size: int
    _entries: NDArray[Any]

    def parts(self) -> Iterator[Part]:
        """What it is made of, in order."""
        for xorb, _, size, first, end in self._entries:
            yield Part(bytes(xorb), int(size), int(first), int(end))


def read_shard(body: Buffer) -> Iterator[ShardFile]:
    """The files of a shard. Raises HubError for what is none."""
    if len(body) < _START.size or _START.unpack_from(body)[:2] != (_TAG, _VERSION):
        raise HubError(400, "what came is no shard")
    at = _START.size
    try:
        while True:
            name, flags, count, *_ = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            if name == _END:
                return
            end = at + _ENTRY.size * count * (2 if flags & _PROVEN else 1)
            if not flags & _HASHED:
                raise HubError(400, "a file comes without its SHA-256: no commit could name it")
            # Written as xet writes its own names.
            sha256 = to_hex(_ENTRY.unpack_from(body, end)[0])
            parts = np.frombuffer(body, _PARTS, count, at)
            at = end + _ENTRY.size
            yield ShardFile(sha256, int(parts["size"].sum(dtype=np.uint64)), parts)
    except struct.error:
        raise HubError(400, "a shard was cut short") from None
