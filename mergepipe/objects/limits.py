"""How large objects may be, by kind: a few KB of zstd can claim to be a name of 200 MB.

Who writes keeps to the limits, and who reads asks before memory is spent: the kind stands at the
beginning of an object, its length in the record (docs/format.md, "Limits").
"""

from mergepipe.errors import Corruption, UsageError
from mergepipe.sizes import MIB

# Profiles and plans of the largest models stay far below; a reader takes three times this at once.
MAX_OBJECT_BYTES = 256 << 20
MAX_AUTHOR = 1000
MAX_MESSAGE = 1 << 20
MAX_PARENTS = 1000
MAX_FILES = 250_000
MAX_FILE_TENSORS = 1_000_000
MAX_DIMENSIONS = 64
MAX_BLOCKS = 2_000_000

MAX_BYTES = {"commit": 8 * MIB, "snapshot": 64 * MIB, "tensor": 64 * MIB}
"""Canonical bytes of an object of some kinds; all others: `MAX_OBJECT_BYTES`."""
UNASKED_BYTES = min(MAX_BYTES.values())
"""An object of any kind may be as large."""


def check_read(kind: str, size: int, what: str) -> None:
    """Raise Corruption for an object that claims more than its kind may have."""
    largest = MAX_BYTES.get(kind, MAX_OBJECT_BYTES)
    if size > largest:
        raise Corruption(
            f"{what} claims to be a {kind} of {size:,} bytes; {largest:,} are allowed",
            "no mergepipe writes that: trust nothing else from where it came",
        )


def check_written(kind: str, size: int) -> None:
    """Raise UsageError for an object that nobody would read."""
    largest = MAX_BYTES.get(kind, MAX_OBJECT_BYTES)
    if size > largest:
        hint = {
            "tensor": "a larger store.block_size makes fewer blocks",
            "snapshot": f"commit fewer files (at most {MAX_FILES:,}), or parts of them",
            "commit": "a shorter message will do",
        }.get(kind, "")
        raise UsageError(f"a {kind} of {size:,} bytes is too large: {largest:,} are allowed", hint)


def check_count(what: str, count: int, most: int) -> None:
    """Raise UsageError for a field with more than a reader takes."""
    if count > most:
        raise UsageError(f"{what}: {count:,} are too many, {most:,} are allowed")
