"""`mp undo`: take back what a command did to branches, tags and HEAD."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, date, table, title
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.repository.operations import Operation

_SHOWN = 30


class MoveDocument(msgspec.Struct, frozen=True):
    """A ref that an operation moved: commit ids, `ref: NAME` for HEAD, null for none."""

    name: str
    old: str | None
    new: str | None


class OperationDocument(msgspec.Struct, frozen=True):
    """An operation; `mp undo --json` prints the one it took back, with --list all, newest first."""

    id: str
    time: int
    command: str
    why: str
    refs: tuple[MoveDocument, ...]
    pruned: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp undo\nmp undo --list\nmp undo 3f2a"
    command(app, "undo", MODEL, examples=examples)(undo)


def undo(
    session: Session,
    operation: Annotated[
        str | None,
        typer.Argument(
            metavar="OPERATION",
            help="The beginning of an operation's id; the last one if not given.",
            show_default=False,
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", "-l", help="List operations instead.", show_default=False)
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Lose changes to files that follow.", show_default=False),
    ] = False,
) -> None:
    """Take back the last command that moved branches, tags or HEAD, or that pruned.

    Files follow where that command brought them; a commit's files stay. Again, it takes back the
    undo. Refused where a ref was moved since, or gc removed what would come back.
    """
    with session.repository() as repository, session.progress(kernels=False) as progress:
        if list_them:
            operations = repository.operations.read()
            session.emit([_document(each) for each in operations], _list(operations))
            return
        undone = repository.undo(operation, force=force, progress=progress)
    text = f"Took back `{escape_for_terminal(undone.command)}` ({undone.id[:6]}): {_told(undone)}"
    session.emit(_document(undone), "" if session.quiet else text)


def _document(operation: "Operation") -> OperationDocument:
    moves = (
        MoveDocument(each.ref, each.old or None, each.new or None)
        for each in operation.moves.values()
    )
    return OperationDocument(
        id=operation.id,
        time=operation.time,
        command=operation.command,
        why=operation.why,
        refs=tuple(moves),
        pruned=tuple(each.hex() for each in operation.pruned),
    )


def _list(operations: "list[Operation]") -> str:
    rows = [
        (each.id[:6], date(each.time, 0), escape_for_terminal(each.command), _told(each))
        for each in operations[:_SHOWN]
    ]
    more = len(operations) - len(rows)
    lines = [table(rows)] if rows else ["Nothing was done yet that could be taken back"]
    return "\n".join([*lines, *([f"... and {more} before"] if more else [])])


def _told(operation: "Operation") -> str:
    names = [
        each.ref.removeprefix("refs/heads/").removeprefix("refs/")
        for each in operation.moves.values()
    ]
    parts = [escape_for_terminal(", ".join(names[:4]) + (" ..." if names[4:] else ""))]
    for commits, verb in ((operation.pruned, "let go of"), (operation.kept, "kept again")):
        if commits:
            parts.append(f"{count(len(commits), 'model')} {verb}")
    if operation.why:
        parts.append(title(operation.why))
    return "; ".join(part for part in parts if part)
