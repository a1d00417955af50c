"""What a merge takes nothing of, told by model: layers are counted, not listed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from mergepipe.names import quoted

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The tensors by whose names a model and the result of its merge differ.

    base_instead  of the result: the model lacks them, and adds nothing to the base there
    not_merged    of the model: the result has no such
    """

    model: str
    base_instead: tuple[str, ...] = ()
    not_merged: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """A sentence for each of the two, for a person."""
        told = []
        if self.base_instead:
            told.append(
                f"{quoted(self.model)} lacks {_counted(self.base_instead)}; "
                f"it adds nothing to the base's there: {shown(self.base_instead)}"
            )
        if self.not_merged:
            told.append(
                f"{quoted(self.model)} has {_counted(self.not_merged)} that the result has no "
                f"place for; not merged: {shown(self.not_merged)}"
            )
        return tuple(told)


def collected(parts: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """One for each model, in the order of their first mention."""
    lacking: dict[str, dict[str, None]] = {}
    over: dict[str, dict[str, None]] = {}
    for part in parts:
        lacking.setdefault(part.model, {}).update(dict.fromkeys(part.base_instead))
        over.setdefault(part.model, {}).update(dict.fromkeys(part.not_merged))
    return tuple(
        LeftOut(model, tuple(lacking[model]), tuple(over[model]))
        for model in lacking
        if lacking[model] or over[model]
    )


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
    return [(_ranges(numbers), *one) for rest, numbers in firsts.items() for one in rest]


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


def _counted(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
