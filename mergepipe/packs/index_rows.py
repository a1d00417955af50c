"""The rows of the index's tables: keys and values of packs and records (docs/format.md)."""

import struct
from collections.abc import Iterator
from typing import cast

import lmdb

from mergepipe.ids import ID_BYTES
from mergepipe.packs.format import RecordHeader, RecordKind

BLOCK_KEY_BYTES = 2 * ID_BYTES + 3
BLOCK = struct.Struct("<IQQQB")
OBJECT = struct.Struct("<IQQQBB")
PACK = struct.Struct("<32sQI")
NUMBER = struct.Struct(">I")
"""Of a pack, by which records name it."""


def items(cursor: lmdb.Cursor) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from the cursor on (bytes, as transactions here never ask for buffers)."""
    return cast(Iterator[tuple[bytes, bytes]], iter(cursor))


def record_row(number: int, header: RecordHeader, offset: int) -> tuple[bytes, bytes]:
    """Key and value of a record in the pack of this number; of its block, or of its object."""
    lengths = header.encoded_length, header.raw_length
    if header.kind is RecordKind.BLOCK:
        key = header.id + header.base + bytes((header.codec, header.version, header.layer))
        return key, BLOCK.pack(number, offset, *lengths, header.layers)
    return header.id, OBJECT.pack(number, offset, *lengths, header.codec, header.version)


def pack_number(value: bytes) -> int:
    """The number of the pack that a record of this value lies in."""
    return int.from_bytes(value[:4], "little")
