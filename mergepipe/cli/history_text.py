"""Commits as people read them, in `mp log` and `mp show`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mergepipe.cli.text import Paint, date, short, title
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.ids import ObjectId
    from mergepipe.objects.records import Commit
    from mergepipe.repository.refs import RefStore


class CommitText:
    """Writes commits, with the names that stand at each."""

    def __init__(
        self, paint: Paint, names: Mapping["ObjectId", list[str]], verbose: bool = False
    ) -> None:
        self._paint = paint
        self._names = names
        self._verbose = verbose

    def line(self, identity: "ObjectId", commit: "Commit") -> str:
        """`3fa9c2d1e0ab (HEAD -> main) First try`."""
        at = self._paint("yellow", short(identity))
        return f"{at}{self._decoration(identity)} {title(commit.message)}"

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
    """What stands at each commit: `HEAD -> main`, branches, `tag: v1`, remotes, imports."""
    from mergepipe.repository.refnames import TAGS, short_name

    head = refs.head()
    found: dict[ObjectId, list[str]] = defaultdict(list)
    if head.commit is not None:
        found[head.commit].append(f"HEAD -> {head.short_branch}" if head.branch else "HEAD")
    for name, identity in refs.list().items():
        if name != head.branch:
            tag = "tag: " if name.startswith(TAGS) else ""
            found[identity].append(tag + short_name(name))
    return found
