"""`mp switch`: change the current branch."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import short
from mergepipe.errors import UsageError


class SwitchDocument(msgspec.Struct, frozen=True):
    """`mp switch --json`. `commit` is null on a branch without one; `created`: it is new."""

    branch: str
    commit: str | None
    created: bool


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp switch main\nmp switch -c experiment\nmp switch -c again v1"
    command(app, "switch", MODEL, examples=examples)(switch)


def switch(
    session: Session,
    branch: Annotated[str, typer.Argument(metavar="BRANCH", autocompletion=completion.branches)],
    start: Annotated[
        str,
        typer.Argument(
            metavar="[START]",
            help="With -c: where it begins.",
            autocompletion=completion.revisions,
        ),
    ] = "HEAD",
    create: Annotated[
        bool,
        typer.Option("--create", "-c", help="Make it, at START.", show_default=False),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Overwrite what is not committed.", show_default=False),
    ] = False,
) -> None:
    """Put HEAD on a branch. Files follow if a model is checked out, and stay away if none is."""
    if start != "HEAD" and not create:
        raise UsageError(
            f"a branch is switched to where it is, not at {start!r}",
            f"mp switch -c {branch} {start} makes one there; mp checkout {start} takes a revision",
        )
    with session.repository() as repository:
        with session.progress() as progress:
            repository.switch(branch, create=create, start=start, force=force, progress=progress)
        head = repository.refs.head()
        present = repository.worktree.snapshot() is not None
    name = head.short_branch or branch
    document = SwitchDocument(name, None if head.commit is None else head.commit.hex(), create)
    at = "no commits yet" if head.commit is None else f"at {short(head.commit)}"
    what = "On new branch" if create else "On branch"
    text = f"{what} {session.paint('green', name)}, {at}"
    session.emit(document, "" if session.quiet else text)
    if not present and head.commit is not None:
        session.note("no files are checked out: `mp checkout HEAD` writes them here")
