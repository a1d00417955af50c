"""Commits as pages show them, and history as a graph."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit
from mergepipe.repository.graph import draw
from mergepipe.repository.refnames import HEADS, TAGS, short_name

Names = Mapping[ObjectId, Sequence[str]]


class Shown(Struct, frozen=True):
    """A commit. `names`: what stands at it; `title`: its message's first line, `body` the rest."""

    id: ObjectId
    names: Sequence[str]
    title: str
    body: str
    author: str
    time: int
    parents: tuple[ObjectId, ...]
    trained_from: ObjectId | None
    leans_on: ObjectId | None
    is_merge: bool

    @property
    def hex(self) -> str:
        """The whole id."""
        return self.id.hex()

    @property
    def short(self) -> str:
        """Its first digits."""
        return self.id.hex()[:12]


class Row(Struct, frozen=True):
    """A line of the graph: its edges, and the commit whose line it is, if it is one's."""

    edges: str
    commit: Shown | None


def names_of(repository: Repository) -> Names:
    """What branches and tags stand at each commit."""
    names: dict[ObjectId, list[str]] = defaultdict(list)
    for ref, tip in repository.refs.list().items():
        if ref.startswith((HEADS, TAGS)):
            names[tip].append(("tag: " if ref.startswith(TAGS) else "") + short_name(ref))
    return names


def shown(identity: ObjectId, commit: Commit, names: Names) -> Shown:
    """A commit as pages show it."""
    title, _, body = commit.message.strip().partition("\n")
    return Shown(
        identity,
        names.get(identity, ()),
        title or "(no message)",
        body.strip("\n"),
        commit.author,
        commit.time,
        commit.parents,
        commit.trained_from,
        commit.leans_on,
        commit.manifest is not None,
    )


def graph(
    repository: Repository, revision: str | None, names: Names, first: int, count: int
) -> tuple[list[Row], bool]:
    """Lines of `count` commits after `first` from a revision (None: all refs) back; more to come.

    Raises RevisionNotFound.
    """
    waiting: dict[ObjectId, Commit] = {}

    def edges() -> Iterator[tuple[ObjectId, tuple[ObjectId, ...]]]:
        for identity, commit in repository.log(revision, topological=True):
            waiting[identity] = commit
            yield identity, commit.parents

    rows: list[Row] = []
    for number, drawing in enumerate(draw(edges())):
        commit = waiting.pop(drawing.commit)
        if number == first + count:
            return _level(rows), True
        if number >= first:
            rows += [Row(edge, None) for edge in drawing.before]
            rows.append(Row(drawing.node, shown(drawing.commit, commit, names)))
            rows += [Row(edge, None) for edge in drawing.after]
    return _level(rows), False


def _level(rows: Sequence[Row]) -> list[Row]:
    """The lines, all as wide as the widest, so that what stands beside them is in a column."""
    width = max((len(row.edges) for row in rows), default=0)
    return [Row(row.edges.ljust(width), row.commit) for row in rows]
