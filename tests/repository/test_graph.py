from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.repository.graph import draw


def picture(history):
    lines: list[str] = []
    for drawing in draw(history):
        lines += drawing.before
        lines.append(f"{drawing.node} {drawing.commit}")
        lines += drawing.after
    return "\n".join(lines)


CASES = {
    "line": (
        [("B", "A"), ("A", "")],
        """
        * B
        * A
        """,
    ),
    "diamond": (
        [("M", "AB"), ("B", "R"), ("A", "R"), ("R", "")],
        r"""
        * M
        |\
        | * B
        * | A
        |/
        * R
        """,
    ),
    "octopus beside another branch": (
        [("T", "X"), ("M", "ABC"), ("X", "R"), ("A", "R"), ("B", "R"), ("C", "R"), ("R", "")],
        r"""
        * T
        | *-. M
        | |\ \
        * | | | X
        | * | | A
        |/ / /
        | * | B
        |/ /
        | * C
        |/
        * R
        """,
    ),
    "octopus with a lane to its right": (
        [("M", "LR"), ("L", "abcd"), ("R", "a"), ("a", ""), ("b", ""), ("c", ""), ("d", "")],
        r"""
        * M
        |\
        |  \
        |    \
        *---. | L
        |\ \ \ \
        | | | | * R
        | | | |/
        | | |/|
        | |/| |
        |/| | |
        * | | | a
         / / /
        * | | b
         / /
        * | c
         /
        * d
        """,
    ),
    "two roots": (
        [("B", "A"), ("Y", ""), ("A", ""), ("X", "")],
        """
        * B
        | * Y
        * A
        * X
        """,
    ),
    "a root to the left": (
        [("A", ""), ("B", "C"), ("C", "")],
        """
        * A
        * B
        * C
        """,
    ),
    "a root between lanes": (
        [("P", "Q"), ("S", "T"), ("Q", ""), ("T", "")],
        """
        * P
        | * S
        * | Q
         /
        * T
        """,
    ),
    "a merge that crosses a lane": (
        [("T", "A"), ("M", "B"), ("N", "CA"), ("A", ""), ("B", ""), ("C", "")],
        r"""
        * T
        | * M
        | | * N
        | | |\
        | | |/
        | |/|
        |/| |
        * | | A
         / /
        * | B
         /
        * C
        """,
    ),
    "a shortened log leaves edges open": (
        [("M", "AB")],
        r"""
        * M
        |\
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pictures(name):
    history, expected = CASES[name]
    assert picture(history) == dedent(expected).strip("\n")


def trace(lines, row, column, direction):
    """Follow an edge down by eye: straight on if it can, until a node or the end."""
    while row < len(lines):
        line = lines[row].ljust(column + 3)
        ways = [
            way
            for way, at, mark in (
                ("|", column, "|*"),
                ("/", column - 1, "/"),
                ("\\", column + 1, "\\"),
            )
            if at >= 0 and line[at] in mark
        ]
        direction = direction if direction in ways else ways[0]
        if direction == "|" and line[column] == "*":
            return row
        column += {"|": 0, "/": -2, "\\": 2}[direction]
        row += 1
    return None


def traced_edges(history):
    lines: list[str] = []
    names: dict = {}
    for drawing in draw(history):
        lines += drawing.before
        names[len(lines)] = drawing.commit
        lines += [drawing.node, *drawing.after]
    edges = set()
    for row, name in names.items():
        column = lines[row].index("*")
        arms = len(lines[row][column:].split(" ")[0])
        below = lines[row + 1].ljust(column + arms + 3) if row + 1 < len(lines) else ""
        ends = []
        if below and below[column] in "|*":
            ends.append(trace(lines, row + 1, column, "|"))
        if below and column and below[column - 1] == "/":
            ends.append(trace(lines, row + 1, column, "/"))
        ends += [
            trace(lines, row + 1, arm, "\\")
            for arm in range(column, column + arms, 2)
            if below and below[arm + 1] == "\\"
        ]
        edges |= {(name, names[end]) for end in ends if end is not None}
    return edges


@st.composite
def histories(draw_value):
    count = draw_value(st.integers(1, 12))
    return [
        (
            number,
            draw_value(
                st.lists(st.integers(number + 1, min(number + 6, count)), unique=True, max_size=5)
                if number < count
                else st.just([])
            ),
        )
        for number in range(count)
    ]


@given(histories())
def test_every_edge_can_be_followed_by_eye(history):
    shown = {number for number, _ in history}
    declared = {(child, parent) for child, parents in history for parent in parents}
    assert traced_edges(history) >= {(c, p) for c, p in declared if p in shown}
    assert {(c, p) for c, p in traced_edges(history) if dict(history)[c]} <= declared


def test_drawing_is_lazy():
    endless = ((number, [number + 1]) for number in iter(int, 1))
    assert next(draw(endless)).node == "*"
