"""What a line takes in, through the lines that it is made of: one step computes all of them.

An input that is made by an earlier line is computed for the same elements inside the step, rounded
to its line's dtype, and never written. So what a step reads is what all lines under it read.
"""

from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from mergepipe.objects.merging import LinePlan, PlanInput


class Leaf(Struct, frozen=True):
    """An input that no line makes: number `place` of line `line`."""

    line: int
    place: int
    input: PlanInput


class Tree(Struct, frozen=True):
    """A line and all lines under it, and what they take from models.

    lines   numbers: the root, then the others, the earliest first
    leaves  of these lines, in their order
    """

    root: int
    lines: tuple[int, ...]
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, root: int, lines: Sequence[LinePlan]) -> Self:
        """The tree of line `root`."""
        lines_of_tree = {root}
        todo = [root]
        while todo:
            line = lines[todo.pop()]
            for term in taken(line):
                if term.made is not None and term.made not in lines_of_tree:
                    lines_of_tree.add(term.made)
                    todo.append(term.made)
        order = (root, *sorted(lines_of_tree - {root}))
        return cls(
            root,
            order,
            tuple(
                Leaf(number, place, term)
                for number in order
                for place, term in enumerate(lines[number].inputs)
                if term.made is None
            ),
        )

    def rows(self, line: int) -> list[int]:
        """Places among the leaves of those that a line itself takes in."""
        return [row for row, leaf in enumerate(self.leaves) if leaf.line == line]


def taken(line: LinePlan) -> tuple[PlanInput, ...]:
    """A line's inputs, and its base."""
    return line.inputs if line.base is None else (line.base, *line.inputs)
