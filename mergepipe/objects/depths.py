"""How deep a plan reads a block of an input: the numbers that plans hold (docs/format-merge.md)."""

from enum import IntEnum


class Depth(IntEnum):
    """How deep a plan reads an expert's block."""

    OMITTED = 0
    COARSE = 1
    EXACT = 2
    EQUAL = 3
