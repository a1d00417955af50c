"""What single settings may be, from TOML or as typed: each reader returns the value, checked."""

from collections.abc import Callable
from contextlib import suppress

from mergepipe.codecs.chooser import EFFORTS
from mergepipe.executors.choosing import parse as parse_executor
from mergepipe.repository.durations import LONGEST_S, parse_duration
from mergepipe.sizes import KIB, MIB, parse_size

SHARED = "group"
UNSHARED = "umask"
BLOCKS_AT = ("auto", "clone", "remote")
_SMALLEST_BLOCK = 4 * KIB
_LARGEST_BLOCK = 64 * MIB


def block_size(value: object) -> int:
    """Bytes of a block, as a number or as `1MiB`. Raises ValueError, UsageError."""
    size = parse_size(value) if isinstance(value, str) else integer(value)
    if size % 16 or not _SMALLEST_BLOCK <= size <= _LARGEST_BLOCK:
        raise ValueError(f"{value!r} is not a multiple of 16 bytes from 4KiB to 64MiB")
    return size


def receive_limit(value: object) -> int:
    """Bytes that others may send; 0: as many as the disk takes. Raises ValueError, UsageError."""
    size = parse_size(value) if isinstance(value, str) else integer(value)
    if not 0 <= size <= 1 << 60:
        raise ValueError(f"{value!r} is no size that a disk may have")
    return size


def codec(value: object) -> str:
    """How hard blocks are encoded. Raises ValueError, UsageError."""
    if value not in EFFORTS:
        raise ValueError(f"{value!r} is not one of {', '.join(EFFORTS)}")
    return str(value)


def shared(value: object) -> str:
    """Who may write: whom the umask lets, or the group. Raises ValueError, UsageError."""
    known = {"true": SHARED, "false": UNSHARED, True: SHARED, False: UNSHARED}
    word = known.get(value, value) if isinstance(value, str | bool) else value
    if word not in (SHARED, UNSHARED):
        raise ValueError(f"{value!r} is neither {SHARED} nor {UNSHARED}")
    return str(word)


def blocks_at(value: object) -> str:
    """Where merges of a lazy clone put their blocks. Raises ValueError."""
    if value not in BLOCKS_AT:
        raise ValueError(f"{value!r} is not one of {', '.join(BLOCKS_AT)}")
    return str(value)


def grace(value: object) -> int:
    """Seconds, as a number or as `2 weeks`. Raises ValueError, UsageError."""
    if isinstance(value, str) and not value.strip().isdecimal():
        return parse_duration(value)
    return between(0, LONGEST_S)(value)


def executor(value: object) -> str:
    """Who does the work. Raises ValueError, UsageError.

    Not where a cluster is: what comes back from there is trusted, and whoever wrote the settings
    of a repository is not to choose it.
    """
    if not isinstance(value, str) or parse_executor(value).address:
        raise ValueError(f"{value!r} is not auto, threads, processes, processes:N, ray or ray:N")
    return value


def integer(value: object) -> int:
    """A whole number. Raises ValueError, UsageError."""
    if isinstance(value, str) and value.strip().isdecimal() and value.isascii():
        value = int(value[:18])
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def between(smallest: int, largest: int) -> Callable[[object], int]:
    """A reader of whole numbers in a range, both ends included. Raises ValueError, UsageError."""

    def parse_value(value: object) -> int:
        number = integer(value)
        if not smallest <= number <= largest:
            raise ValueError(f"{number} is not between {smallest} and {largest}")
        return number

    return parse_value


def seconds(value: object) -> float:
    """A time of up to a day. Raises ValueError, UsageError."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= 86400:
        raise ValueError(f"{value!r} is not a number of seconds from 0 to 86400")
    return float(number)


def flag(value: object) -> bool:
    """True or false, in any of the words of TOML, YAML and git. Raises ValueError, UsageError."""
    if isinstance(value, str):
        value = {
            "true": True,
            "yes": True,
            "on": True,
            "false": False,
            "no": False,
            "off": False,
        }.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: object) -> str:
    """A line of text. Raises ValueError, UsageError."""
    if not isinstance(value, str) or any(ord(letter) < 32 for letter in value):
        raise ValueError(f"{value!r} is not a line of text")
    return value
