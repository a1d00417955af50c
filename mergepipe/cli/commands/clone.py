"""`mp clone`: a repository that has what another one has."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.fetched_text import FetchDocument, fetch_document, fetch_text, hex_id
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session
from mergepipe.cli.text import duration, short
from mergepipe.names import escape_for_terminal


class CloneDocument(msgspec.Struct, frozen=True):
    """`mp clone --json`. `commit` is null where there is none; `files`: they were checked out."""

    directory: str
    branch: str
    commit: str | None
    files: bool
    lazy: bool
    fetch: FetchDocument


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp clone ssh://models.example.org/srv/llama
        mp clone https://models.example.org/llama code --branch code
        mp clone s3://models/llama --no-checkout
        mp clone https://models.example.org/llama --branch prod --depth 1   what is served
    """
    command(app, "clone", SHARING, examples=examples)(clone)


def clone(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="A path, or another place.")],
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Where; the URL's last part if not given.", show_default=False
        ),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch",
            "-b",
            metavar="BRANCH",
            help="Only this one, with its history, and begin there.",
        ),
    ] = None,
    lazy: Annotated[
        bool,
        typer.Option(
            "--lazy", help="History only; blocks come when they are read.", show_default=False
        ),
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", metavar="N", min=1, help="The newest N commits of each branch only."
        ),
    ] = None,
    no_checkout: Annotated[
        bool, typer.Option("--no-checkout", "-n", help="Write no files.", show_default=False)
    ] = False,
) -> None:
    """Make a repository that has what the one at URL has, and check its model out.

    URL becomes the remote `origin`. Typed again, a clone that was cut goes on.
    """
    import time

    from mergepipe.api import Repository
    from mergepipe.api.identity import identity
    from mergepipe.transfer.remotes import check_remote_url

    began = time.monotonic()
    with session.progress() as progress:
        cloned = Repository.clone(
            url,
            directory,
            branch=branch,
            lazy=lazy,
            depth=depth,
            checkout=not no_checkout,
            credentials=session.credentials(),
            who=identity(session.environment),
            progress=progress,
        )
    session.remember(check_remote_url(url))
    seconds = time.monotonic() - began
    document = CloneDocument(
        directory=str(cloned.directory),
        branch=cloned.branch,
        commit=hex_id(cloned.commit),
        files=cloned.files,
        lazy=cloned.lazy,
        fetch=fetch_document(cloned.fetch, seconds),
    )
    name = session.paint("green", escape_for_terminal(cloned.branch))
    at = "no commits yet" if cloned.commit is None else f"at {short(cloned.commit)}"
    where = escape_for_terminal(str(cloned.directory))
    did = "There was this clone already, in" if cloned.stood else "Cloned to"
    told = f"{did} {where}: {name}, {at}, {duration(seconds)}"
    text = f"{fetch_text(session.paint, cloned.fetch)}\n{told}"
    session.emit(document, "" if session.quiet else text)
    if cloned.commit is not None and not cloned.files:
        session.note("no files are checked out: `mp checkout HEAD` writes them")
