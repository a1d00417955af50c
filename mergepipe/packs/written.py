"""A pack that somebody wrote and nobody published yet."""

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.packs.entries import PackEntry


class WrittenPack(Struct, frozen=True):
    """A pack that is not visible: its index entry, and where it lies.

    key      in its store, where it was written elsewhere; durable then
    writer   of this process, which owns it
    checked  whether blocks that the store has were left out as it was written
    """

    entry: PackEntry
    key: str = ""
    writer: ByteWriter | None = None
    checked: bool = False
