"""Neighbours are taken together up to a size."""

from collections.abc import Iterator

from mergepipe.grouping import grouped


def test_a_group_is_as_large_as_it_may_be() -> None:
    assert list(grouped([3, 4, 3, 9, 1], int, 10)) == [[3, 4, 3], [9, 1]]


def test_an_item_that_is_too_large_is_a_group_by_itself() -> None:
    assert list(grouped([1, 50, 1], int, 10)) == [[1], [50], [1]]


def test_nothing_makes_no_group() -> None:
    assert list(grouped([], int, 10)) == []


def test_groups_are_made_as_they_are_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for size in (6, 6, 6):
            taken.append(size)
            yield size

    groups = grouped(items(), int, 10)
    assert next(groups) == [6]
    assert len(taken) == 2
