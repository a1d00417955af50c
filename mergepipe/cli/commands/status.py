"""`mp status`: where we are, what changed, what to do next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import Paint, short
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.checkpoints.worktree import FileChange
    from mergepipe.repository.refs import Head

_COLOURS = {"new": "green", "modified": "yellow", "deleted": "red"}


class ChangeDocument(msgspec.Struct, frozen=True):
    """A file that differs from HEAD: `change` is new, modified or deleted."""

    path: str
    change: str


class StatusDocument(msgspec.Struct, frozen=True):
    """`mp status --json`. `branch` is null if HEAD is detached, `commit` if there is none yet.

    `materialised`: whether a model's files lie beside `.mergepipe`. `worktree_snapshot`: the
    snapshot they were last known to hold.
    """

    branch: str | None
    commit: str | None
    clean: bool
    materialised: bool
    changes: tuple[ChangeDocument, ...]
    worktree_snapshot: str | None


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "status", MODEL)(status)


def status(session: Session) -> None:
    """Show where HEAD is and which files differ from its commit.

    Files that were not touched since they were last read are not read again.
    """
    with session.repository() as repository:
        head = repository.refs.head()
        recorded = repository.worktree.snapshot()
        materialised = recorded is not None or bool(repository.worktree.scan())
        changes: Sequence[FileChange] = ()
        if materialised:
            with session.progress(kernels=False) as progress:
                changes = repository.status(progress)
            recorded = repository.worktree.snapshot()
        tip = None if head.commit is None else repository.objects.commit(head.commit).snapshot
        gone = {change.path for change in changes if change.change == "deleted"}
        absent = (
            tip is not None
            and bool(gone)
            and gone.issuperset(file.path for file in repository.objects.snapshot(tip).files)
        )
    document = StatusDocument(
        branch=head.short_branch,
        commit=None if head.commit is None else head.commit.hex(),
        clean=not changes,
        materialised=materialised,
        changes=tuple(ChangeDocument(change.path, change.change) for change in changes),
        worktree_snapshot=None if recorded is None else recorded.hex(),
    )
    behind = recorded is not None and tip is not None and recorded != tip
    session.emit(document, _text(session.paint, head, document, behind, absent))


def _text(paint: Paint, head: "Head", document: StatusDocument, behind: bool, absent: bool) -> str:
    """absent: none of the commit's files is here, so that others beside are hardly a new model."""
    lines = [_where(paint, head)]
    if not document.materialised:
        if head.commit is None:
            lines.append("No model here yet: put its files here, or `mp commit PATH`")
        else:
            lines.append("No files are checked out: `mp checkout HEAD` writes them here")
    elif not document.changes:
        lines.append("Nothing to commit: the files here are those of the last commit")
    elif absent and document.worktree_snapshot is None:
        new = [change for change in document.changes if change.change == "new"]
        lines.append("No files are checked out: `mp checkout HEAD` writes them here")
        lines += ["", "Other files are here, and `mp commit` would store nothing but them:", ""]
        lines += _listed(paint, new)
    else:
        lines += ["", *_listed(paint, document.changes), ""]
        if behind:
            lines.append("The files here were checked out, or committed, before HEAD moved.")
        lines.append("`mp commit` stores them as they are now")
        if any(change.change != "new" for change in document.changes):
            lines.append("`mp checkout HEAD --force` brings back what was modified or deleted")
    return "\n".join(lines)


def _where(paint: Paint, head: "Head") -> str:
    if head.branch is None:
        at = "" if head.commit is None else short(head.commit)
        return f"HEAD detached at {paint('yellow', at)}: commits here belong to no branch"
    branch = paint("green", head.short_branch or "")
    if head.commit is None:
        return f"On branch {branch}, which has no commits yet"
    return f"On branch {branch}, at {paint('yellow', short(head.commit))}"


def _listed(paint: Paint, changes: Sequence[ChangeDocument]) -> list[str]:
    lines = []
    for change in changes:
        what = paint(_COLOURS[change.change], f"{change.change}:".ljust(10))
        lines.append(f"  {what}{escape_for_terminal(change.path)}")
    return lines
