"""Bodies of xet's protocol, written by hand from its description."""

import struct
from collections.abc import Sequence

from mergepipe.hub.xet.hashes import chunk_hash, from_hex, to_hex, xorb_hash

TAG = b"HFRepoMetaData" + bytes.fromhex("00556967456a7b815783a5bdd95ccdd14aa9")
ENTRY = struct.Struct("<32s4I")


def chunk(packed: bytes, size: int, scheme: int = 0) -> bytes:
    """A chunk of a xorb, behind its header."""
    lengths = (len(packed).to_bytes(3, "little"), size.to_bytes(3, "little"))
    return b"\0" + lengths[0] + bytes([scheme]) + lengths[1] + packed


def xorb(chunks: Sequence[bytes]) -> tuple[str, bytes]:
    """A name, as addresses have it, and a body of chunks that are not packed."""
    name = xorb_hash([(chunk_hash(each), len(each)) for each in chunks])
    return to_hex(name), b"".join(chunk(each, len(each)) for each in chunks)


def shard(sha256: str, parts: Sequence[tuple[str, int, int, int]]) -> bytes:
    """A body of one file: names of xorbs, bytes, first chunks, ends."""
    listed = [ENTRY.pack(from_hex(name), 0, *rest) for name, *rest in parts]
    return (
        TAG
        + struct.pack("<QQ", 2, 0)
        + ENTRY.pack(bytes(32), 3 << 30, len(parts), 0, 0)
        + b"".join(listed)
        + bytes(ENTRY.size * len(parts))
        + ENTRY.pack(from_hex(sha256), 0, 0, 0, 0)
        + ENTRY.pack(b"\xff" * 32, 0, 0, 0, 0)
        + ENTRY.pack(b"\xff" * 32, 0, 0, 0, 0)
    )


def frame(*blocks: tuple[bytes, bool], flags: int = 0x60) -> bytes:
    """A frame of LZ4 with these blocks: bytes, and whether they are plain."""
    words = [
        (len(data) | (1 << 31 if plain else 0)).to_bytes(4, "little") + data
        for data, plain in blocks
    ]
    return b"\x04\x22\x4d\x18" + bytes([flags, 0x40, 0]) + b"".join(words) + bytes(4)
