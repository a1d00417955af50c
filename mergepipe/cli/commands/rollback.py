"""`mp rollback`: a branch holds an earlier model again, by a new commit."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import short, title
from mergepipe.names import escape_for_terminal


class RollbackDocument(msgspec.Struct, frozen=True):
    """`mp rollback --json`: the new commit, and the one whose model it holds."""

    commit: str
    restored: str
    branch: str


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp rollback prod prod~1\nmp rollback prod 'prod@{yesterday}' -m 'Bad day'"
    command(app, "rollback", MODEL, examples=examples)(rollback)


def rollback(
    session: Session,
    branch: Annotated[
        str,
        typer.Argument(
            metavar="BRANCH",
            help="The branch that goes back.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="The revision whose model it holds again: prod~1, prod@{yesterday}, a tag or id.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ],
    message: Annotated[
        str,
        typer.Option("--message", "-m", metavar="MSG", help="Why.", show_default=False),
    ] = "",
) -> None:
    """Commit on BRANCH the model that TO holds, forward, so that everyone can pull it.

    Nothing is copied: the commit refers to the same weights and the same manifest, and replays as
    the old one does. `mp reset` moves a branch back instead, which others do not follow.
    """
    with session.repository() as repository, session.progress() as progress:
        restored = repository.resolve(to)
        identity = repository.revising.rollback(branch, to, message=message, progress=progress)
        written = repository.objects.commit(identity).message
    document = RollbackDocument(identity.hex(), restored.hex(), branch)
    where = session.paint("green", escape_for_terminal(branch))
    text = f"[{where} {session.paint('yellow', short(identity))}] {title(written)}"
    session.emit(document, "" if session.quiet else text)
