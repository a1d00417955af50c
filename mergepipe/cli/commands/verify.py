"""`mp verify`: whether files somewhere are those of a commit."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.session import Session
from mergepipe.cli.text import count
from mergepipe.names import escape_for_terminal


class VerifiedFile(msgspec.Struct, frozen=True):
    """A file that differs; `change` is new, modified, mode (the executable bit) or deleted."""

    path: str
    change: str


class VerifyDocument(msgspec.Struct, frozen=True):
    """`mp verify --json`. `ok`: the files are those of the commit, every byte."""

    ok: bool
    directory: str
    commit: str
    changes: tuple[VerifiedFile, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp verify /models/llama v1.2
        mp verify ./model.safetensors main
    """
    command(app, "verify", HISTORY, examples=examples)(verify)


def verify(
    session: Session,
    path: Annotated[
        str, typer.Argument(metavar="DIR", help="A directory, or one file.", show_default=False)
    ],
    revision: Annotated[
        str,
        typer.Argument(
            metavar="REV", help="What it should hold.", autocompletion=completion.revisions
        ),
    ] = "HEAD",
) -> int:
    """Tell whether the files in DIR are exactly those of REV.

    Reads them, and nothing of the store but what names its blocks. Exits with 1 if any differs.
    """
    if not Path(path).exists() and Path(revision).exists():
        path, revision = revision, path  # typed the other way round
    with session.repository() as repository, session.progress() as progress:
        identity, _ = repository.commit_of(revision)
        found = repository.contents.verify(path, revision, progress=progress)
    document = VerifyDocument(
        not found,
        path,
        identity.hex(),
        tuple(VerifiedFile(each.path, each.change) for each in found),
    )
    lines = [
        f"{session.paint('red', each.change)} {escape_for_terminal(each.path)}" for each in found
    ]
    at = identity.hex()[:12]
    if found:
        lines.append(
            f"{count(len(found), 'file')} {'differs' if len(found) == 1 else 'differ'} from {at}"
        )
    elif not session.quiet:
        lines.append(f"{session.paint('green', 'ok')}: these are the files of {at}")
    session.emit(document, "\n".join(lines))
    return 0 if document.ok else 1
