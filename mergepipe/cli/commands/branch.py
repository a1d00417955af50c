"""`mp branch`: list, make and remove branches."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import Delete, RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.text import short, table, title
from mergepipe.errors import UsageError


class BranchDocument(msgspec.Struct, frozen=True):
    """A branch; `mp branch --json` lists them. `current`: HEAD is on it."""

    name: str
    commit: str
    current: bool


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp branch                  list them
        mp branch try code~1       make one at a commit
        mp branch -d try           remove it
    """
    command(app, "branch", HISTORY, examples=examples)(branch)


def branch(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=completion.branches)
    ] = None,
    revision: RevisionOrHead = "HEAD",
    delete: Delete = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "-f",
            help="Move one that is there; remove one whose commits nothing else holds.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """List the branches, make one at REV, or remove one. HEAD stays; see `mp switch`."""
    if name is None:
        if delete:
            raise UsageError("which branch?", "mp branch -d NAME")
        _list(session)
        return
    with session.repository() as repository:
        if delete:
            identity = repository.delete_branch(name, force=force)
            text = f"Removed branch {name}, which was at {short(identity)}"
        else:
            identity = repository.branch(name, revision, force=force)
            text = f"Branch {session.paint('green', name)} is at {short(identity)}"
    document = BranchDocument(name, identity.hex(), current=False)
    session.emit(document, "" if session.quiet else text)


def _list(session: Session) -> None:
    from mergepipe.repository.refnames import HEADS

    with session.repository() as repository:
        head = repository.refs.head()
        found = repository.refs.list(HEADS)
        documents = [
            BranchDocument(ref.removeprefix(HEADS), identity.hex(), ref == head.branch)
            for ref, identity in found.items()
        ]
        rows = [
            (
                ("* " if document.current else "  ") + document.name,
                short(identity),
                title(repository.objects.commit(identity).message),
            )
            for document, identity in zip(documents, found.values(), strict=True)
        ]
    if head.branch is None and head.commit is not None:
        rows.insert(0, ("* (detached HEAD)", short(head.commit), ""))
    lines = table(rows).splitlines() if rows else []
    text = "\n".join(
        session.paint("green", line) if line.startswith("*") else line for line in lines
    )
    session.emit(documents, text)
    if not rows:
        session.say("no branches yet: the first commit makes one")
