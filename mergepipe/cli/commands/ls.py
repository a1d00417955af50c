"""`mp ls`: the files of a commit."""

from typing import Annotated

import typer

from mergepipe.cli.command import command
from mergepipe.cli.commands.show import FileDocument, file_document
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.text import table
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp ls\nmp ls -v code~1\nmp ls code tokenizer"
    command(app, "ls", HISTORY, examples=examples)(ls)


def ls(
    session: Session,
    revision: RevisionOrHead = "HEAD",
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file or folder in it.", show_default=False)
    ] = "",
) -> None:
    """List the files of a commit; with -v their sizes. `mp show REV:PATH` prints one."""
    with session.repository() as repository:
        documents: list[FileDocument] = [
            file_document(entry) for entry in repository.contents.files(revision, path)
        ]
    rows = [
        (format_size(each.size), escape_for_terminal(each.path))
        if session.verbose
        else (escape_for_terminal(each.path),)
        for each in documents
    ]
    session.emit(documents, table(rows, right=(0,) if session.verbose else ()) if rows else "")
