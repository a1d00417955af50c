r"""History drawn with characters, as `git log --graph` draws it.

    *   M      a merge: the node, then a row where its edges part
    |\
    | * B
    * | A
    |/         a row where two edges meet, above the commit that both wait for
    * R

Every edge is in a *lane*, two characters wide. A row moves an edge by one lane at most, so edges
can be followed by eye: straight on, a diagonal after a diagonal.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

Id = TypeVar("Id", bound=Hashable)


class Drawing(Struct, Generic[Id], frozen=True):
    """The rows of one commit, top to bottom, without spaces at their ends.

    `before` makes room, `node` has the commit's `*`, `after` parts and joins edges. More lines of
    text than rows go beside `padding`.
    """

    commit: Id
    before: tuple[str, ...]
    node: str
    after: tuple[str, ...]
    padding: str


def draw(history: Iterable[tuple[Id, Sequence[Id]]]) -> Iterator[Drawing[Id]]:
    """Draw commits, given as (id, parents) with children before parents, one at a time.

    Parents that never come (the end of a shortened log) leave their edges open.
    """
    lanes: list[Id] = []
    for commit, named in history:
        parents = list(dict.fromkeys(named))
        if commit not in lanes:
            lanes.append(commit)
        at = lanes.index(commit)
        right = len(lanes) - at - 1
        # An octopus is wider than the one lane that the row below it can make room for.
        spread = max(0, len(parents) - 2)
        room = range(spread if right else 0)
        before = [
            _row(verticals=range(at + 1), falling=range(at + 1 + step, at + 1 + step + right))
            for step in room
        ]
        node = _node(at, spread, right)
        after: list[str] = []
        if len(parents) > 1:
            after.append(_row(range(at + 1), falling=range(at, at + spread + 1 + right)))
        elif not parents and right:
            after.append(_row(range(at), rising=range(at + 1, at + 1 + right)))
        lanes[at : at + 1] = parents
        after += _join(lanes)
        yield Drawing(commit, tuple(before), node, tuple(after), _row(range(len(lanes))))


def _node(at: int, spread: int, right: int) -> str:
    arm = "-" * (2 * spread - 1) + "." if spread else ""
    return " ".join(["|"] * at + ["*" + arm] + ["|"] * right)


def _join(lanes: list[Id]) -> list[str]:
    """Rows that bring edges to the same commit together, on the leftmost; shortens `lanes`."""
    rows = []
    at = 0
    while at < len(lanes):
        target = lanes.index(lanes[at])
        if target == at:
            at += 1
            continue
        # The edge and all to its right move over; then it crosses what is between, one by one.
        rows.append(_row(range(at), rising=range(at, len(lanes))))
        del lanes[at]
        rows += [_row(range(len(lanes)), rising=[lane]) for lane in range(at - 1, target, -1)]
    return rows


def _row(
    verticals: Iterable[int], *, rising: Iterable[int] = (), falling: Iterable[int] = ()
) -> str:
    """A row of edges that stay in their lane, move to the next one left, or right."""
    marks = {2 * lane: "|" for lane in verticals}
    marks |= {2 * lane - 1: "/" for lane in rising}
    marks |= {2 * lane + 1: "\\" for lane in falling}
    return "".join(marks.get(column, " ") for column in range(max(marks, default=-1) + 1))
