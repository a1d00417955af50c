"""Many names of tensors for a person: numbers of layers and experts collapsed, not listed."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from mergepipe.names import quoted

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_MOST_SHOWN = 12


def shown(names: Sequence[str]) -> str:
    """Names for a person, numbers of layers and experts collapsed: `h.[0-11].attn.bias`."""
    patterns = collapsed(names)
    text = ", ".join(quoted(pattern) for pattern in patterns[:_MOST_SHOWN])
    more = len(patterns) - _MOST_SHOWN
    return text + (f" and {more} more names" if more > 0 else "")


def collapsed(names: Iterable[str]) -> list[str]:
    """Patterns that stand for exactly these names, in the order of their first."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name in dict.fromkeys(names):
        numbers = tuple(int(number) for number in _NUMBER.findall(name))
        groups.setdefault(_NUMBER.sub("\0", name), []).append(numbers)
    patterns = []
    for frame, rows in groups.items():
        for row in _boxes(rows):
            filled = iter(row)
            patterns.append(re.sub("\0", lambda _, filled=filled: next(filled), frame))  # type: ignore[misc]
    return patterns


def _boxes(rows: Sequence[tuple[int, ...]]) -> list[tuple[str, ...]]:
    """Rows of numbers as products of ranges; those that share all but the first are one."""
    if not rows[0]:
        return [()]
    firsts: dict[tuple[tuple[str, ...], ...], list[int]] = {}
    for first, group in groupby(sorted(rows), key=lambda row: row[0]):
        rest = _boxes([row[1:] for row in group])
        firsts.setdefault(tuple(rest), []).append(first)
    return [(_ranges(numbers), *ranges) for rest, numbers in firsts.items() for ranges in rest]


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in order: `3`, or `[0-3,7]`."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number, number])
    return "[" + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in runs) + "]"
