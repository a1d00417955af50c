"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from mergepipe.cli import completion
from mergepipe.errors import UsageError
from mergepipe.names import quoted

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

Delete = Annotated[
    bool, typer.Option("--delete", "-d", help="Remove it, and others named.", show_default=False)
]
More = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="With -d: more to remove.", show_default=False),
]


def named(name: str, revision: str, more: list[str] | None) -> list[str]:
    """All that is to be removed, once each: where others take REV, -d takes another name."""
    second = [] if revision == "HEAD" else [revision]
    return list(dict.fromkeys([name, *second, *(more or ())]))


def refuse_more(more: list[str] | None, command: str) -> None:
    """Raise UsageError for what follows a name and a revision."""
    if more:
        raise UsageError(
            f"one name and one revision are taken, and {quoted(more[0])} is a third",
            f"`mp {command} -d NAME...` removes several",
        )
