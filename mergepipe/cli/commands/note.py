"""`mp note`: say more of a commit than its id holds, such as the loss that it reached."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.session import Session
from mergepipe.cli.text import date, short
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.repository.notes import Remarks


class RemarkDocument(msgspec.Struct, frozen=True):
    """One note: `value` is a number where it is one; `time` in Unix seconds."""

    value: float | int | str
    author: str
    time: int


class NoteDocument(msgspec.Struct, frozen=True):
    """`mp note --json`: all that is noted of the commit, by key."""

    commit: str
    notes: dict[str, RemarkDocument]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp note prod loss=3.61 verdict=kept
        mp note prod verdict=          takes it back
        mp note prod                   lists them
        mp log --metric loss --sort loss
    """
    command(app, "note", HISTORY, examples=examples)(note)


def note(
    session: Session,
    revision: Annotated[
        str,
        typer.Argument(metavar="REV", help="The commit.", autocompletion=completion.revisions),
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...", help="What to note; none lists it.", show_default=False
        ),
    ] = None,
) -> None:
    """Note values on a commit, outside of its id. push and fetch carry them along.

    `mp log` and `mp show` list them. Where two sides noted the same key, what was said last stands.
    """
    told = dict(map(_parse, values or ()))
    with session.repository() as repository:
        identity = repository.resolve(revision)
        notes = repository.note(revision, **told) if told else repository.notes(revision)
    document = NoteDocument(
        identity.hex(),
        {key: RemarkDocument(each.shown, each.author, each.time) for key, each in notes.items()},
    )
    lines = [f"{short(identity)}: nothing is noted"] if not notes else list(_lines(notes))
    session.emit(document, "" if session.quiet and told else "\n".join(lines))


def _parse(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"a note is KEY=VALUE, not {quoted(text)}", "mp note REV loss=3.61")
    return key, value


def _lines(notes: Remarks) -> Iterator[str]:
    width = max(map(len, notes))
    for key, each in notes.items():
        yield (
            f"{key.ljust(width)}  {escape_for_terminal(each.value)}  "
            f"({escape_for_terminal(each.author)}, {date(each.time, 0)})"
        )
