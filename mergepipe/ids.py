"""Ids: BLAKE3-256 of logical content, 32 bytes inside, 64 hex characters on screen."""

from typing import NewType, TypeAlias

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import force_setattr

BlockId = NewType("BlockId", bytes)
ObjectId = NewType("ObjectId", bytes)
PackId = NewType("PackId", bytes)

ID_BYTES = 32
NO_ID = bytes(ID_BYTES)

Buffer: TypeAlias = bytes | bytearray | memoryview


class Shown(bytes):
    """An id that prints as hex; else the bytes that it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self.hex()

    __str__ = __repr__


def shown(identity: ObjectId) -> ObjectId:
    """The same id, which prints as hex: what people get to see."""
    return ObjectId(Shown(identity))


def show_ids(value: Struct, *fields: str) -> None:
    """Let these fields of a frozen struct print as hex; for its `__post_init__`."""
    for name in fields:
        held = getattr(value, name)
        if held is not None:
            force_setattr(value, name, Shown(held))


def digest(data: Buffer) -> bytes:
    """BLAKE3-256 of `data`, on the calling thread and without the GIL."""
    return blake3(data).digest()


def block_id(raw: Buffer) -> BlockId:
    """The id of a block's raw bytes."""
    return BlockId(digest(raw))


def object_id(canonical: Buffer) -> ObjectId:
    """The id of an object's canonical bytes."""
    return ObjectId(digest(canonical))
