"""`mp pull`: fetch a branch and move the current one forward to it."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.fetched_text import FetchDocument, fetch_document, fetch_text, hex_id
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session
from mergepipe.cli.text import short
from mergepipe.names import escape_for_terminal


class PullDocument(msgspec.Struct, frozen=True):
    """`mp pull --json`. `old` is null for a first commit; `files`: the worktree followed.

    `behind`: the remote's branch where it is at an earlier commit than this one; `went_back`: it
    was moved there since the last fetch.
    """

    branch: str
    old: str | None
    new: str
    files: bool
    behind: str | None
    went_back: bool
    fetch: FetchDocument


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp pull
        mp pull origin main
        mp pull --depth 1              what is new there, without what came before it
    """
    command(app, "pull", SHARING, examples=examples)(pull)


def pull(
    session: Session,
    remote: Annotated[
        str | None,
        typer.Argument(
            metavar="REMOTE",
            help="A remote's name; origin if none is given.",
            autocompletion=completion.remotes,
            show_default=False,
        ),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Argument(
            metavar="BRANCH",
            help="The branch there; that of the current branch's name if none is given.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            metavar="N",
            min=1,
            help="Its newest N commits; older ones that are here stay.",
        ),
    ] = None,
) -> None:
    """Fetch a branch and move the current branch forward to it.

    Files follow if a model is checked out and they hold nothing that no commit has. Where both
    sides have commits of their own nothing moves: models have no lines to be merged by.
    """
    import time

    began = time.monotonic()
    with session.repository() as repository, session.progress() as progress:
        credentials = session.credentials(repository.directory)
        pulled = repository.pull(
            remote, branch, depth=depth, credentials=credentials, progress=progress
        )
    seconds = time.monotonic() - began
    document = PullDocument(
        branch=pulled.branch,
        old=hex_id(pulled.old),
        new=pulled.new.hex(),
        files=pulled.files,
        behind=pulled.behind,
        went_back=pulled.went_back,
        fetch=fetch_document(pulled.fetch, seconds),
    )
    name = session.paint("green", escape_for_terminal(pulled.branch))
    if pulled.behind is not None:
        there = escape_for_terminal(pulled.behind)
        what = "went back to an earlier commit" if pulled.went_back else "is at an earlier commit"
        told = (
            f"{there} {what}; {name} stays at {short(pulled.new)}\n"
            f"mp reset --hard {there} follows it; mp push gives it what is here"
        )
    elif pulled.old == pulled.new:
        told = f"{name} has it all already, at {short(pulled.new)}"
    elif pulled.old is None:
        told = f"{name} begins at {short(pulled.new)}"
    else:
        told = f"{name} moved from {short(pulled.old)} to {short(pulled.new)}"
    if pulled.files:
        told += ", and the files with it"
    text = f"{fetch_text(session.paint, pulled.fetch)}\n{told}"
    session.emit(document, "" if session.quiet else text)
