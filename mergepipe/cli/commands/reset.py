"""`mp reset`: move the current branch."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.parameters import RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.text import short, title


class ResetDocument(msgspec.Struct, frozen=True):
    """`mp reset --json`. `old` is where the branch, or detached HEAD, was."""

    branch: str | None
    old: str | None
    commit: str


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "reset", MODEL, examples="mp reset HEAD~1\nmp reset --hard main@{1}")(reset)


def reset(
    session: Session,
    revision: RevisionOrHead = "HEAD",
    hard: Annotated[
        bool,
        typer.Option("--hard", help="Files follow; changes to them are lost.", show_default=False),
    ] = False,
) -> None:
    """Point the current branch at another commit. Files stay as they are, unless --hard.

    What the branch no longer reaches stays in `mp reflog` until gc.
    """
    with session.repository() as repository:
        before = repository.refs.head()
        with session.progress() as progress:
            identity = repository.reset(revision, hard=hard, progress=progress)
        commit = repository.objects.commit(identity)
    old = None if before.commit is None else before.commit.hex()
    where = before.short_branch or "HEAD"
    text = (
        f"{session.paint('green', where)} is now at "
        f"{session.paint('yellow', short(identity))} {title(commit.message)}"
    )
    document = ResetDocument(before.short_branch, old, identity.hex())
    session.emit(document, "" if session.quiet else text)
