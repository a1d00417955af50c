"""Neighbours, taken together up to a size: what is read, sent or written in one go."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def grouped(
    items: Iterable[_Item], size: Callable[[_Item], int], most: int
) -> Iterator[list[_Item]]:
    """Items in their order, in groups of at most `most` bytes; a larger item is a group by itself.

    `size` gives the bytes of an item. Groups are made as they are asked for.
    """
    group: list[_Item] = []
    total = 0
    for item in items:
        length = size(item)
        if group and total + length > most:
            yield group
            group, total = [], 0
        group.append(item)
        total += length
    if group:
        yield group
