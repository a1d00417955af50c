"""`mp checkout`: a revision's files, or single tensors, back on disk."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.parameters import Revision
from mergepipe.cli.session import Session
from mergepipe.cli.text import duration, short, title
from mergepipe.names import escape_for_terminal


class CheckoutDocument(msgspec.Struct, frozen=True):
    """`mp checkout --json`. `path`: where the files are. `branch`: where HEAD is now, if on one.

    `head` says whether HEAD moved (without --to, --tensor and PATHs it does).
    """

    commit: str
    snapshot: str
    path: str
    head: bool
    branch: str | None
    seconds: float


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp checkout main                                 into the worktree
        mp checkout v1 --to /tmp/v1                      into another directory
        mp checkout main~1 -- config.json tokenizer      these files or folders only
        mp checkout code --tensor lm_head.weight --to head.safetensors
    """
    command(app, "checkout", MODEL, examples=examples)(checkout)


def checkout(
    session: Session,
    revision: Revision,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Only these files or folders, as `mp ls` prints them, over what is there.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Write there; the worktree and HEAD stay."),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor",
            metavar="NAME",
            help="Only this tensor, in a safetensors file of its own (DIR or FILE of --to). "
            "Repeat for more.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Overwrite what is not committed.", show_default=False),
    ] = False,
) -> None:
    """Write the files of a revision, bit for bit.

    Into the worktree, and HEAD follows: onto the branch if REV is one, else detached. With --to or
    --tensor neither worktree nor HEAD change. With PATHs these files are replaced, and HEAD stays.
    """
    began = time.monotonic()
    with session.repository() as repository:
        identity, commit = repository.commit_of(revision)
        with session.progress() as progress:
            path = repository.checkout(
                revision,
                to=to,
                tensors=tensor or (),
                paths=paths or (),
                force=force,
                progress=progress,
            )
        moved = to is None and not tensor and not paths
        branch = repository.refs.head().short_branch
    seconds = time.monotonic() - began
    document = CheckoutDocument(
        commit=identity.hex(),
        snapshot=commit.snapshot.hex(),
        path=str(path),
        head=moved,
        branch=branch if moved else None,
        seconds=round(seconds, 3),
    )
    at = f"{session.paint('yellow', short(identity))} {title(commit.message)}"
    if not moved:
        text = f"Wrote {escape_for_terminal(str(path))} from {at}"
    elif branch is not None:
        text = f"On branch {session.paint('green', branch)}, at {at}"
    else:
        text = f"HEAD is now at {at}"
    session.emit(document, "" if session.quiet else text)
    if moved and branch is None:
        session.say("on no branch: `mp switch -c NAME` makes one here, to commit onto")
    session.note(f"took {duration(seconds)}")
