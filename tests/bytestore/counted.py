"""Documents of a million entries, made in no time."""

import numpy as np

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def counted(count: int, row: bytes, base: int = 10) -> bytes:
    """`row` that many times; in each, every `#` is a digit of its number, from 0."""
    rows = np.tile(np.frombuffer(row, np.uint8), (count, 1))
    numbers = np.arange(count)
    for column in reversed(np.flatnonzero(rows[0] == ord("#"))):
        numbers, digits = np.divmod(numbers, base)
        rows[:, column] = _DIGITS[digits]
    return rows.tobytes()


def many_refs(count: int, value: bytes) -> bytes:
    """As msgpack, a map of so many branches, which all have this value."""
    name = b"refs/heads/#######"
    assert count <= 10**7 and len(value) < 256
    row = bytes([0xA0 | len(name)]) + name + bytes([0xC4, len(value)]) + value
    return b"\xdf" + count.to_bytes(4, "big") + counted(count, row)


def many_packs(count: int) -> bytes:
    """As msgpack, the keys of so many packs."""
    key = b"packs/" + b"#" * 64 + b".pack"
    return b"\xdd" + count.to_bytes(4, "big") + counted(count, bytes([0xD9, len(key)]) + key, 16)
