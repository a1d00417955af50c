"""Canonical bytes of objects: one value, one encoding, one id (docs/format.md, "Objects")."""

from typing import TypeVar

import msgspec

from mergepipe.errors import Corruption
from mergepipe.objects.records import Record

Kind = TypeVar("Kind", bound=Record)

_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[type[Record], msgspec.msgpack.Decoder[Record]] = {}


def encode(record: Record) -> bytes:
    """The canonical bytes of an object."""
    return b"%s %d\n" % (record.KIND.encode(), record.VERSION) + _ENCODER.encode(record)


def kind_of(canonical: bytes) -> str:
    """The kind of the object with these bytes. Raises Corruption."""
    head, newline, _ = canonical.partition(b"\n")
    kind, space, _ = head.partition(b" ")
    if not newline or not space or not kind.isalpha() or len(head) > 40:
        raise Corruption("not an object: no kind in its first line")
    return kind.decode()


def decode(canonical: bytes, kind: type[Kind], what: str) -> Kind:
    """The object of these bytes. Raises Corruption if they are no canonical `kind`."""
    head, _, body = canonical.partition(b"\n")
    expected = f"{kind.KIND} {kind.VERSION}".encode()
    if head != expected:
        raise Corruption(
            f"{what} is {head[:40]!r}, not {expected.decode()!r}",
            "a newer mergepipe may have written it" if head.startswith(kind.KIND.encode()) else "",
        )
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        record = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{what} does not decode: {error}") from error
    if _ENCODER.encode(record) != body:
        raise Corruption(f"{what} is not canonical")
    assert isinstance(record, kind)
    return record
