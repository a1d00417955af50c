"""A block on its way into a pack: encoded, checked for size, its record headers sealed."""

from msgspec import Struct

from mergepipe.codecs.protocol import Buffer, Codec
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import U8, DType
from mergepipe.ids import NO_ID, BlockId, digest, object_id
from mergepipe.packs.format import RecordHeader, RecordKind, object_header


class EncodedRecord(Struct, frozen=True):
    """One layer, ready to be appended: its header, the header's sealed bytes, its payload."""

    header: RecordHeader
    sealed: bytes
    payload: Buffer


class EncodedBlock(Struct, frozen=True):
    """All records of one encoding of a block."""

    id: BlockId
    raw_length: int
    records: tuple[EncodedRecord, ...]

    @property
    def stored_bytes(self) -> int:
        """What the block takes in packs."""
        return sum(record.header.stored_bytes for record in self.records)


def encode_block(
    identity: BlockId,
    raw: Buffer,
    dtype: DType,
    codec: Codec,
    base: tuple[BlockId, Buffer] | None = None,
    workspace: Workspace | None = None,
) -> EncodedBlock:
    """Encode a block with `codec`; as `raw` where that would not be smaller.

    `base` is the base block's id and bytes, for codecs that need one. Who encodes many blocks gives
    a `workspace`. The result never takes more
    than the raw block and one record header.
    """
    if codec.tag != _RAW.tag and len(raw):
        payloads = codec.encode(raw, base[1] if base else None, dtype, workspace or Workspace())
        records = _seal(identity, len(raw), codec, base[0] if base else None, payloads)
        encoded = EncodedBlock(identity, len(raw), records)
        if sum(len(payload) for payload in payloads) < len(raw):
            return encoded
    header = RecordHeader(
        kind=RecordKind.BLOCK,
        codec=_RAW.tag,
        version=_RAW.version,
        layer=0,
        layers=1,
        raw_length=len(raw),
        encoded_length=len(raw),
        id=identity,
        base=NO_ID,
    )
    return EncodedBlock(identity, len(raw), (EncodedRecord(header, header.sealed(identity), raw),))


def seal_payloads(
    identity: BlockId,
    raw_length: int,
    codec: Codec,
    base: BlockId | None,
    payloads: tuple[Buffer, ...],
) -> EncodedBlock:
    """The encoded block of payloads that a codec already made."""
    return EncodedBlock(identity, raw_length, _seal(identity, raw_length, codec, base, payloads))


def encode_object(canonical: bytes) -> tuple[RecordHeader, bytes]:
    """The header and payload of an object's record: zstd where that is smaller, else raw."""
    codec, payload = _RAW, canonical
    if len(canonical) > _WORTH_COMPRESSING:
        zstd = codec_named("zstd")
        smaller = bytes(zstd.encode(canonical, None, U8, Workspace())[0])
        if len(smaller) < len(canonical):
            codec, payload = zstd, smaller
    identity = object_id(canonical)
    return object_header(identity, codec.tag, codec.version, len(canonical), len(payload)), payload


def _seal(
    identity: BlockId,
    raw_length: int,
    codec: Codec,
    base: BlockId | None,
    payloads: tuple[Buffer, ...],
) -> tuple[EncodedRecord, ...]:
    records = []
    for layer, payload in enumerate(payloads):
        header = RecordHeader(
            kind=RecordKind.BLOCK,
            codec=codec.tag,
            version=codec.version,
            layer=layer,
            layers=len(payloads),
            raw_length=raw_length,
            encoded_length=len(payload),
            id=identity,
            base=base or NO_ID,
        )
        records.append(EncodedRecord(header, header.sealed(digest(payload)), payload))
    return tuple(records)


_RAW = codec_named("raw")
_WORTH_COMPRESSING = 128
