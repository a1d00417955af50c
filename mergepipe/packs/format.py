"""The bytes of a pack: header, records, footer, trailer (docs/format.md, "Packs").

Shared by reader and writer, so that the layout stands in one place.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

from mergepipe.errors import Corruption, NewerFormat
from mergepipe.ids import NO_ID, Buffer, PackId, digest

PACK_MAGIC = b"MPPACK\r\n"
PACK_VERSION = 1
RECORD_MAGIC = b"MPR1"
TRAILER_MAGIC = b"MPEND\r\n\0"

_PACK_HEADER = struct.Struct("<8sII")
_RECORD = struct.Struct("<4sBBBBB7sQQ32s32s")
_RESERVED = bytes(7)
_CHECKSUM_BYTES = 32
_TRAILER = struct.Struct("<QQ32s8s")
_OFFSET = struct.Struct("<Q")

PACK_HEADER_BYTES = _PACK_HEADER.size
RECORD_HEADER_BYTES = _RECORD.size + _CHECKSUM_BYTES
FOOTER_ENTRY_BYTES = RECORD_HEADER_BYTES + _OFFSET.size
TRAILER_BYTES = _TRAILER.size
MAX_LAYERS = 8
# What a record may claim, so that a hostile one cannot make a reader allocate at will: blocks are
# at most 64 MiB (the largest store.block_size), objects come nowhere near 1 GiB, and a payload
# never expands what it encodes by more than a codec's own headers.
MAX_BLOCK_BYTES = 64 << 20
MAX_OBJECT_BYTES = 1 << 30
_MAX_EXPANSION_BYTES = 1 << 16


class Content(IntEnum):
    """What a pack holds."""

    BLOCKS = 0
    OBJECTS = 1


class RecordKind(IntEnum):
    """What a record holds."""

    BLOCK = 0
    OBJECT = 1


class EncodingKey(NamedTuple):
    """What the records of one encoding of a block, one for each layer, have in common."""

    kind: RecordKind
    id: bytes
    base: bytes
    codec: int
    version: int
    layers: int
    raw_length: int


class RecordHeader(Struct, frozen=True, eq=False, gc=False):
    """All that a record says about its payload. Lengths in bytes; `base` is NO_ID for none.

    Two are equal whether or not their checksums are known: an index keeps none.
    """

    kind: RecordKind
    codec: int
    version: int
    layer: int
    layers: int
    raw_length: int
    encoded_length: int
    id: bytes
    base: bytes
    checksum: bytes = b""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordHeader):
            return NotImplemented
        return (
            self.is_beside(other)
            and self.layer == other.layer
            and self.encoded_length == other.encoded_length
        )

    def __ne__(self, other: object) -> bool:
        return not self == other  # a Struct has its own, which asks nobody

    def __hash__(self) -> int:
        return hash((self.id, self.base, self.layer))

    @property
    def encoding(self) -> EncodingKey:
        """The encoding that the record is a layer of."""
        return EncodingKey(
            kind=self.kind,
            id=self.id,
            base=self.base,
            codec=self.codec,
            version=self.version,
            layers=self.layers,
            raw_length=self.raw_length,
        )

    def is_beside(self, other: "RecordHeader") -> bool:
        """Whether both are of one encoding; as to compare `encoding`, in a fraction of the time."""
        return (
            self.id == other.id
            and self.base == other.base
            and self.codec == other.codec
            and self.version == other.version
            and self.layers == other.layers
            and self.raw_length == other.raw_length
            and self.kind == other.kind
        )

    @property
    def is_last_layer(self) -> bool:
        """Whether it makes its block whole: what comes before is read alone, too."""
        return self.layer + 1 == self.layers

    @property
    def stored_bytes(self) -> int:
        """Length of the whole record."""
        return RECORD_HEADER_BYTES + self.encoded_length

    def sealed(self, payload_digest: bytes) -> bytes:
        """The record's header bytes, checksum included, for a payload of that BLAKE3."""
        fields = _RECORD.pack(
            RECORD_MAGIC,
            self.kind,
            self.codec,
            self.version,
            self.layer,
            self.layers,
            _RESERVED,
            self.raw_length,
            self.encoded_length,
            self.id,
            self.base,
        )
        return fields + digest(fields + payload_digest)


def pack_header(content: Content) -> bytes:
    """The first bytes of a pack."""
    return _PACK_HEADER.pack(PACK_MAGIC, PACK_VERSION, content)


def parse_pack_header(data: Buffer, what: str) -> Content:
    """The content of the pack called `what`. Raises Corruption, NewerFormat."""
    if len(data) < PACK_HEADER_BYTES:
        raise Corruption(f"{what} is cut short: {len(data)} bytes")
    magic, version, content = _PACK_HEADER.unpack_from(data)
    if magic != PACK_MAGIC:
        raise Corruption(f"{what} is not a pack")
    if version != PACK_VERSION:
        raise NewerFormat(
            f"{what} has pack format {version}; this mergepipe reads {PACK_VERSION}",
            "use the newer mergepipe that wrote it",
        )
    try:
        return Content(content)
    except ValueError:
        raise Corruption(f"{what} holds an unknown kind of content ({content})") from None


def parse_record(data: Buffer, what: str, at: int = 0) -> RecordHeader:
    """The record header that starts at byte `at` of `data`. Raises Corruption naming `what`."""
    if len(data) - at < RECORD_HEADER_BYTES:
        raise Corruption(f"{what}: a record header is cut short")
    magic, kind, codec, version, layer, layers, reserved, raw, encoded, identity, base = (
        _RECORD.unpack_from(data, at)
    )
    if magic != RECORD_MAGIC or kind > RecordKind.OBJECT:
        raise Corruption(f"{what}: no record where one should begin")
    if (
        not 1 <= layers <= MAX_LAYERS
        or layer >= layers
        or reserved != _RESERVED
        or identity == base
        or not plausible_lengths(RecordKind(kind), raw, encoded)
        or (kind == RecordKind.OBJECT and (layers != 1 or base != NO_ID))
    ):
        raise Corruption(f"{what}: a record header makes no sense")
    checksum = bytes(data[at + _RECORD.size : at + RECORD_HEADER_BYTES])
    return RecordHeader(
        kind=RecordKind(kind),
        codec=codec,
        version=version,
        layer=layer,
        layers=layers,
        raw_length=raw,
        encoded_length=encoded,
        id=identity,
        base=base,
        checksum=checksum,
    )


def plausible_lengths(kind: RecordKind, raw_length: int, encoded_length: int) -> bool:
    """Whether a record of these lengths may be read; asked before anything is allocated."""
    largest = MAX_BLOCK_BYTES if kind is RecordKind.BLOCK else MAX_OBJECT_BYTES
    return raw_length <= largest and encoded_length <= raw_length + _MAX_EXPANSION_BYTES


def verify_payload(header: RecordHeader, payload: Buffer, what: str) -> None:
    """Compare a payload with its record's checksum. Raises Corruption naming `what`."""
    if header.sealed(digest(payload))[_RECORD.size :] != header.checksum:
        raise Corruption(f"{what}: record of {header.id.hex()[:12]} fails its checksum")


def footer_entry(sealed_header: bytes, offset: int) -> bytes:
    """The footer's line about a record."""
    return sealed_header + _OFFSET.pack(offset)


def trailer(footer: Buffer) -> bytes:
    """The last bytes of a pack."""
    return _TRAILER.pack(
        len(footer) // FOOTER_ENTRY_BYTES, len(footer), digest(footer), TRAILER_MAGIC
    )


def parse_trailer(data: Buffer, what: str) -> tuple[int, PackId]:
    """Length of the footer, and the pack's id. Raises Corruption."""
    if len(data) != TRAILER_BYTES:
        raise Corruption(f"{what} is cut short")
    count, length, identity, magic = _TRAILER.unpack(data)
    if magic != TRAILER_MAGIC or length != count * FOOTER_ENTRY_BYTES:
        raise Corruption(f"{what} does not end as a pack does (cut short?)")
    return length, PackId(identity)


def parse_footer(footer: Buffer, what: str) -> list[tuple[RecordHeader, int]]:
    """Every record's header and offset, in file order. Raises Corruption."""
    return [
        (
            parse_record(footer, what, at),
            _OFFSET.unpack_from(footer, at + RECORD_HEADER_BYTES)[0],
        )
        for at in range(0, len(footer), FOOTER_ENTRY_BYTES)
    ]


def object_header(
    identity: bytes, codec: int, version: int, raw: int, encoded: int
) -> RecordHeader:
    """The header of an object's record: one layer, no base."""
    return RecordHeader(
        kind=RecordKind.OBJECT,
        codec=codec,
        version=version,
        layer=0,
        layers=1,
        raw_length=raw,
        encoded_length=encoded,
        id=identity,
        base=NO_ID,
    )
