"""Ids: BLAKE3-256 of logical content, 32 bytes inside, 64 hex characters on screen."""

from typing import NewType, TypeAlias

from blake3 import blake3

BlockId = NewType("BlockId", bytes)
ObjectId = NewType("ObjectId", bytes)
PackId = NewType("PackId", bytes)

ID_BYTES = 32
NO_ID = bytes(ID_BYTES)

Buffer: TypeAlias = bytes | bytearray | memoryview


def digest(data: Buffer) -> bytes:
    """BLAKE3-256 of `data`, on the calling thread and without the GIL."""
    return blake3(data).digest()


def block_id(raw: Buffer) -> BlockId:
    """The id of a block's raw bytes."""
    return BlockId(digest(raw))


def object_id(canonical: Buffer) -> ObjectId:
    """The id of an object's canonical bytes."""
    return ObjectId(digest(canonical))
