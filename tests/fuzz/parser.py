"""What a parser is to the fuzz driver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Feed = Callable[[bytes], object]
Ready = Callable[[Path], tuple[Feed, Sequence[bytes]]]


@dataclass(frozen=True, slots=True)
class Parser:
    """`ready` gives, for an empty folder, what takes an input, and inputs that it takes.

    refusals  errors beside ours that whoever calls it expects
    """

    name: str
    ready: Ready
    refusals: tuple[type[BaseException], ...] = ()


def plain(name: str, feed: Feed, *seeds: bytes) -> Parser:
    """One that needs no files."""
    return Parser(name, lambda _: (feed, seeds))


def text(data: bytes) -> str:
    """As a text comes from a command line or a file: what is no UTF-8 is kept as surrogates."""
    return data.decode(errors="surrogateescape")
