"""Canonical bytes of objects: one value, one encoding, one id (docs/format.md, "Objects")."""

from typing import TypeVar

import msgspec

from mergepipe.errors import Corruption
from mergepipe.objects.limits import check_written
from mergepipe.objects.records import Record

Kind = TypeVar("Kind", bound=Record)

# The hook is for ids that print as hex (`ids.Shown`), which are encoded as any other.
_ENCODER = msgspec.msgpack.Encoder(enc_hook=bytes)
_DECODERS: dict[type[Record], msgspec.msgpack.Decoder[Record]] = {}


def encode(record: Record) -> bytes:
    """The canonical bytes of an object. Raises UsageError if no reader would take it."""
    record.check_limits()
    canonical = unchecked(record)
    check_written(record.KIND, len(canonical))
    return canonical


def unchecked(record: Record) -> bytes:
    """`encode` for what was read, or is to be refused by who reads it."""
    written = record.as_written()
    return _head(type(written)) + _ENCODER.encode(written)


def kind_of(canonical: bytes) -> str:
    """The kind of the object with these bytes. Raises Corruption."""
    head, newline, _ = canonical.partition(b"\n")
    kind, space, _ = head.partition(b" ")
    if not newline or not space or not kind.isalpha() or len(head) > 40:
        raise Corruption("not an object: no kind in its first line")
    return kind.decode()


def decode(canonical: bytes, kind: type[Kind], what: str) -> Kind:
    """The object of these bytes. Raises Corruption if they are no canonical `kind`."""
    head, newline, body = canonical.partition(b"\n")
    versions: tuple[type[Record], ...] = (kind, *kind.EARLIER)
    version = next((known for known in versions if _head(known) == head + newline), None)
    if version is None:
        raise Corruption(
            f"{what} is {head[:40]!r}, not {_head(kind)[:-1].decode()!r}",
            "a newer mergepipe may have written it" if head.startswith(kind.KIND.encode()) else "",
        )
    decoder = _DECODERS.get(version)
    if decoder is None:
        decoder = _DECODERS[version] = msgspec.msgpack.Decoder(version)
    try:
        record = decoder.decode(body).as_read()
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Corruption(f"{what} does not decode: {error}") from error
    if unchecked(record) != canonical:
        raise Corruption(f"{what} is not canonical")
    assert isinstance(record, kind)
    return record


def _head(version: type[Record]) -> bytes:
    return b"%s %d\n" % (version.KIND.encode(), version.VERSION)
