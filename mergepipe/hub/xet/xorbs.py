"""A xorb as it comes: chunks one after the other, each behind a header, and perhaps an index.

    header   version (0), bytes packed (3), scheme, bytes unpacked (3); numbers least byte first

What follows the chunks (from `XETBLOB` on) repeats what they say, and is not read.
"""

from collections.abc import Callable

from msgspec import Struct

from mergepipe.bytestore.protocol import Buffer
from mergepipe.hub.errors import HubError
from mergepipe.hub.xet import lz4
from mergepipe.hub.xet.hashes import chunk_hash, xorb_hash

LARGEST_BYTES = 80 << 20
"""Of a body: 64 MiB of chunks, and their index."""
_LARGEST_CHUNK = 128 << 10
_MOST_CHUNKS = 16 << 10
_MOST_BYTES = 64 << 20
_HEADER_BYTES = 8
_INDEX = b"XETBLOB"
_PLAIN, _LZ4, _GROUPED = range(3)


class XorbContent(Struct, frozen=True):
    """What a xorb held: its name, and where each chunk ends in all of them together."""

    name: bytes
    ends: tuple[int, ...]


class XorbReader:
    """Takes a body in pieces and writes what the chunks hold, one after the other."""

    def __init__(self, write: Callable[[Buffer], None]) -> None:
        self._write = write
        self._waiting = bytearray()
        self._chunks: list[tuple[bytes, int]] = []
        self._ends: list[int] = []
        self._at_index = False

    def feed(self, *pieces: bytes) -> None:
        """Take the next bytes. Raises HubError for what is no xorb, and what `write` raises."""
        for piece in pieces:
            if self._at_index:
                return
            self._waiting += piece
            taken = 0
            while (end := self._chunk_end(taken)) is not None:
                self._take(bytes(self._waiting[taken : taken + _HEADER_BYTES]), taken, end)
                taken = end
            del self._waiting[:taken]

    def finish(self) -> XorbContent:
        """What came. Raises HubError for a body that was cut short."""
        if not self._chunks or (self._waiting and not self._at_index):
            raise HubError(400, "a xorb was cut short")
        return XorbContent(xorb_hash(self._chunks), tuple(self._ends))

    def _chunk_end(self, at: int) -> int | None:
        """Where the chunk that begins there ends; None if it is not here yet, or none does."""
        if self._at_index or len(self._waiting) - at < _HEADER_BYTES:
            return None
        if self._waiting[at : at + len(_INDEX)] == _INDEX:
            self._at_index = True
            return None
        packed = int.from_bytes(self._waiting[at + 1 : at + 4], "little")
        if self._waiting[at] or packed > 2 * _LARGEST_CHUNK:
            raise HubError(400, "a xorb whose chunks cannot be read")
        end = at + _HEADER_BYTES + packed
        return end if end <= len(self._waiting) else None

    def _take(self, header: bytes, at: int, end: int) -> None:
        size = int.from_bytes(header[5:8], "little")
        total = size + (self._ends[-1] if self._ends else 0)
        if not 0 < size <= _LARGEST_CHUNK or total > _MOST_BYTES or len(self._ends) >= _MOST_CHUNKS:
            raise HubError(400, "a xorb that is larger than any may be")
        chunk = _unpacked(header[4], bytes(self._waiting[at + _HEADER_BYTES : end]), size)
        self._chunks.append((chunk_hash(chunk), size))
        self._ends.append(total)
        self._write(chunk)


def _unpacked(scheme: int, packed: bytes, size: int) -> Buffer:
    if scheme == _PLAIN:
        if len(packed) != size:
            raise HubError(400, "a chunk is not as long as it says")
        return packed
    if scheme not in (_LZ4, _GROUPED):
        raise HubError(400, f"this hub does not know how a chunk is packed ({scheme})")
    chunk = lz4.unpack(packed, size)
    return (lz4.regroup(chunk) if scheme == _GROUPED else chunk).data
