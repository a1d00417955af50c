"""Commits as people read them, in `mp log` and `mp show`."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mergepipe.cli.text import Paint, date, short, title
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.bytestore.protocol import ByteStore
    from mergepipe.ids import ObjectId
    from mergepipe.objects.records import Commit
    from mergepipe.objects.store import ObjectStore
    from mergepipe.repository.notes import Remarks
    from mergepipe.repository.refs import RefStore
    from mergepipe.repository.tombstones import Tombstone


# Refs that are read to say what stands where: a fifth of a second or so.
_MOST_NAMES = 5000


class Said(Struct, frozen=True):
    """What is told of a commit beside itself: its notes, and whether its model was purged.

    `absent`: commits that it names, and that a shallow clone does without.
    """

    notes: "Remarks" = field(default_factory=dict)
    stone: "Tombstone | None" = None
    absent: "tuple[ObjectId, ...]" = ()


def said_of(store: "ByteStore", objects: "ObjectStore") -> "Callable[[ObjectId, Commit], Said]":
    """What a repository tells of each commit."""
    from mergepipe.repository.absent import read_absent
    from mergepipe.repository.notes import noted_commits, read_notes, standing
    from mergepipe.repository.tombstones import read_stones

    stones = read_stones(store)[0]
    noted = next(noted_commits(store), None) is not None
    shallow = bool(read_absent(store))

    def said(identity: "ObjectId", commit: "Commit") -> Said:
        notes = standing(read_notes(store, identity)) if noted else {}
        stone = stones.of(identity, commit.snapshot) if stones else None
        return Said(notes, stone, objects.absent_of(identity) if shallow else ())

    return said


class CommitText:
    """Writes commits, with the names that stand at each."""

    def __init__(
        self,
        paint: Paint,
        names: Mapping["ObjectId", list[str]],
        verbose: bool = False,
        *,
        said: "Callable[[ObjectId, Commit], Said] | None" = None,
        metrics: Sequence[str] = (),
    ) -> None:
        """`said`: what is told of a commit beside itself. `metrics`: notes that get a column."""
        self._paint = paint
        self._names = names
        self._verbose = verbose
        self._said = said or (lambda identity, commit: Said())
        self._metrics = metrics

    def line(self, identity: "ObjectId", commit: "Commit") -> str:
        """`3fa9c2d1e0ab (HEAD -> main) First try`."""
        at = self._paint("yellow", short(identity))
        said = self._said(identity, commit)
        columns = "".join(
            f" {escape_for_terminal(said.notes[key].value if key in said.notes else '-'):>10}"
            for key in self._metrics
        )
        gone = f" {self._paint('red', '(purged)')}" if said.stone else ""
        if said.absent:
            gone += f" {self._paint('cyan', '(shallow)')}"
        return f"{at}{columns}{self._decoration(identity)}{gone} {title(commit.message)}"

    def paragraph(self, identity: "ObjectId", commit: "Commit") -> Iterator[str]:
        """The lines that git writes, what the model was trained from, and what it leans on."""
        yield self._paint("yellow", f"commit {identity.hex()}") + self._decoration(identity)
        if len(commit.parents) > 1:
            yield f"Merge:  {' '.join(short(parent) for parent in commit.parents)}"
        if commit.trained_from is not None:
            yield f"Base:   {self._named(commit.trained_from)}"
        if commit.leans_on not in (None, commit.trained_from):
            yield f"Leans:  {self._named(commit.leans_on)}"
        if self._verbose:
            yield f"Snapshot: {commit.snapshot.hex()}"
            for what, other in (("Manifest", commit.manifest), ("Profile", commit.profile)):
                if other is not None:
                    yield f"{what}: {other.hex()}"
        yield f"Author: {escape_for_terminal(commit.author)}"
        yield f"Date:   {date(commit.time, commit.utc_offset)}"
        said = self._said(identity, commit)
        if said.notes:
            told = ", ".join(f"{key}={each.value}" for key, each in said.notes.items())
            yield f"Notes:  {escape_for_terminal(told)}"
        if said.absent:
            named = ", ".join(short(each) for each in said.absent)
            yield f"Absent: {named} (a shallow clone; mp fetch --unshallow)"
        if said.stone:
            yield self._paint("red", f"Model:  {escape_for_terminal(str(said.stone))}")
        if commit.message.strip():
            yield ""
            for line in commit.message.rstrip().splitlines():
                yield f"    {escape_for_terminal(line)}".rstrip()

    def _named(self, identity: "ObjectId") -> str:
        names = ", ".join(self._names.get(identity, []))
        return f"{short(identity)}{f' ({names})' if names else ''}"

    def _decoration(self, identity: "ObjectId") -> str:
        names = self._names.get(identity)
        if not names:
            return ""
        shown = ", ".join(self._paint("green", name) for name in names)
        return f" {self._paint('yellow', '(')}{shown}{self._paint('yellow', ')')}"


def decorations(refs: "RefStore") -> dict["ObjectId", list[str]]:
    """What stands at each commit: `HEAD -> main`, branches, `tag: v1`, remotes, imports.

    Where there are more refs than anybody waits for, HEAD alone.
    """
    from mergepipe.repository.refnames import TAGS, short_name

    head = refs.head()
    names: dict[ObjectId, list[str]] = defaultdict(list)
    if head.commit is not None:
        names[head.commit].append(f"HEAD -> {head.short_branch}" if head.branch else "HEAD")
    if refs.more_than(_MOST_NAMES):
        return names
    for name, identity in refs.list().items():
        if name != head.branch:
            tag = "tag: " if name.startswith(TAGS) else ""
            names[identity].append(tag + short_name(name))
    return names
