"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from mergepipe.cli import completion

Revision = Annotated[
    str,
    typer.Argument(
        metavar="REV",
        help="A branch, tag, HEAD, main~2, v1^2, main@{1} or the beginning of an id.",
        autocompletion=completion.revisions,
        show_default=False,
    ),
]
RevisionOrHead = Annotated[
    str,
    typer.Argument(
        metavar="REV",
        help="A branch, tag, HEAD, main~2, v1^2, main@{1} or the beginning of an id.",
        autocompletion=completion.revisions,
    ),
]
"""A revision that is HEAD if none is given."""

Delete = Annotated[bool, typer.Option("--delete", "-d", help="Remove it.", show_default=False)]
