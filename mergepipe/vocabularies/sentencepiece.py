"""The pieces of a sentencepiece model file, without the library that made it.

The file is one protobuf message, `ModelProto` of sentencepiece_model.proto; its repeated field 1
holds the pieces in the order of their ids, and field 1 of a piece is its text.
"""

from collections.abc import Iterator

from mergepipe.errors import MalformedFile

_PIECES = 1
_TEXT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_pieces(content: bytes, what: str) -> list[str]:
    """The text of every piece. Raises MalformedFile naming `what`."""
    try:
        pieces = [
            str(next(_fields(piece, _TEXT), b""), "utf-8")
            for piece in _fields(memoryview(content), _PIECES)
        ]
    except (IndexError, ValueError) as error:
        raise MalformedFile(f"{what} is no sentencepiece model", "fetch it again") from error
    if not pieces:
        raise MalformedFile(f"{what} is no sentencepiece model: it has no pieces", "fetch it again")
    return pieces


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of every field `wanted` that holds bytes. Raises ValueError, IndexError."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field is cut short")
            if tag >> 3 == wanted:
                yield message[at : at + length]
            at += length
        else:
            raise ValueError("groups are not read")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
