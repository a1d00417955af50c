"""What becomes of a good input: bits flipped, pieces cut, doubled, put in."""

import random
import struct
from collections.abc import Sequence

# What parsers trip over: limits of numbers, nesting, marks of every format that is read here.
_FRAGMENTS = (
    *(struct.pack("<Q", value) for value in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)),
    *(struct.pack("<I", value) for value in (1, 2**31, 2**32 - 1)),
    *(bytes([value]) * 4 for value in (0, 0x80, 0xC0, 0xDF, 0xFF)),
    b"9" * 30,
    b"-1",
    b"1e999",
    b"NaN",
    b"[" * 200,
    b'{"a":' * 200,
    b"\x91" * 200,
    b"((((",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\\",
    b'"',
    b"'",
    b"../",
    b"/",
    b"%2e%2e%2f",
    b"@{",
    b"~" * 9,
    b"^",
    b"**/",
    b"[!a-",
    b"&a *a",
    b"<<: *a",
    b"!!python/object",
    b"\xed\xa0\x80",
    b"\xff\xfe",
    "İ\u202e\u2028".encode(),
    b"refs/heads/",
    b"null",
    b"true",
    b"{}",
    b"[]",
)
_LARGEST_BYTES = 1 << 17


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed one to four times; now and then noise alone."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng, data, seeds)
    return bytes(data[:_LARGEST_BYTES])


def _change(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    size = min(len(data) - at, rng.choice((1, 1, 2, 4, 8, 40, len(data))))
    how = rng.randrange(7)
    if how <= 1 and at < len(data):
        data[at] ^= 1 << rng.randrange(8) if how else rng.randrange(1, 256)
    elif how == 2:
        del data[at : at + size]
    elif how == 3:
        data[at:at] = data[at : at + size] * rng.choice((1, 2, 30))
    elif how == 4:
        data[at : at + rng.choice((0, size))] = rng.choice(_FRAGMENTS)
    elif how == 5:
        data[at : at + size] = rng.randbytes(size)
    else:
        other = rng.choice(seeds)
        begin = rng.randrange(len(other) + 1)
        data[at : at + size] = other[begin : begin + rng.randrange(1, 80)]
