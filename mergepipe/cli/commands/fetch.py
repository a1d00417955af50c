"""`mp fetch`: bring what a remote has, and note where its branches are."""

from typing import TYPE_CHECKING, Annotated

import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.fetched_text import fetch_document, fetch_text
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session

if TYPE_CHECKING:
    from mergepipe.api.results import FetchResult


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp fetch
        mp fetch origin code math      just these branches
        mp fetch backup --prune
        mp fetch --unshallow           the rest of what was cloned with --depth
        mp fetch backup --heal         what is damaged or missing here, too
    """
    command(app, "fetch", SHARING, examples=examples)(fetch)


def fetch(
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
    branches: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BRANCH...", help="Branches there; all if none is given.", show_default=False
        ),
    ] = None,
    tags: Annotated[
        bool,
        typer.Option(
            "--tags", help="All tags, not only those on what is fetched.", show_default=False
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", "-p", help="Forget branches that are gone there.", show_default=False
        ),
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            metavar="N",
            min=1,
            help="The newest N commits of each branch; older ones that are here stay.",
        ),
    ] = None,
    deepen: Annotated[
        int | None,
        typer.Option("--deepen", metavar="N", min=1, help="N commits behind the oldest here."),
    ] = None,
    unshallow: Annotated[
        bool,
        typer.Option("--unshallow", help="All history of a shallow clone.", show_default=False),
    ] = False,
    heal: Annotated[
        bool,
        typer.Option(
            "--heal",
            help="Read all data here, set damage aside, and bring it again.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Bring what a remote has and this repository lacks; branches here stay where they are.

    What comes is decoded and compared with its ids before anything refers to it. `origin/BRANCH`
    then names where the remote's branch was. A fetch that was cut goes on where it was.
    """
    import time

    from mergepipe.transfer.fetch import FetchOptions
    from mergepipe.transfer.horizon import Reach

    asked = depth is not None or deepen is not None or unshallow
    reach = Reach(depth, deepen, unshallow) if asked else None
    options = FetchOptions(tuple(branches or ()), tags=tags, prune=prune, reach=reach)
    began = time.monotonic()
    with session.repository() as repository, session.progress() as progress:
        credentials = session.credentials(repository.directory)
        result = repository.fetch(
            remote, options, heal=heal, credentials=credentials, progress=progress
        )
    seconds = time.monotonic() - began
    session.emit(fetch_document(result, seconds), _text(session, result, seconds))


def _text(session: Session, result: "FetchResult", seconds: float) -> str:
    return "" if session.quiet else fetch_text(session.paint, result, seconds)
