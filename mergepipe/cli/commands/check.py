"""`mp check`: whether a model's weights look as they should."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.suspect_text import SuspectDocument, documents
from mergepipe.cli.text import count
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.catalog.suspects import Checked


class CheckDocument(msgspec.Struct, frozen=True):
    """`mp check --json`. `against`: the commit compared with; null: values alone were looked at.

    `missing`, `added`: tensors that only that one has, or only this one, and compare with nothing.
    """

    ok: bool
    commit: str
    against: str | None
    suspects: tuple[SuspectDocument, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp check code                     against what it was trained from
        mp check code --against code~1    against its previous version
    """
    command(app, "check", HISTORY, examples=examples)(check)


def check(
    session: Session,
    revision: RevisionOrHead = "HEAD",
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="REV",
            help="Compare with this model; without it, with the one that REV was trained from.",
            autocompletion=completion.revisions,
        ),
    ] = None,
) -> int:
    """Look for weights that are wrong: NaN, infinite, zeroed, or unlike those they came from.

    Or that changed by leaps since the version before, which others of the model did not.

    Reads the blocks that differ, and all of a model that was never counted. Exits with 1 if a
    tensor looks wrong.
    """
    with session.repository() as repository, session.progress() as progress:
        found = repository.check(revision, against, progress=progress)
    document = CheckDocument(
        ok=not found.suspects,
        commit=found.revision,
        against=found.against,
        suspects=documents(found.suspects),
        missing=found.missing,
        added=found.added,
    )
    session.emit(document, _text(session, found))
    return 0 if document.ok else 1


def _text(session: Session, found: "Checked") -> str:
    lines = [
        f"{session.paint('red', one.kind)} {escape_for_terminal(one.tensor)}: {one.message}"
        for one in found.suspects
    ]
    for names, what in ((found.missing, "is missing"), (found.added, "is new")):
        if names and not session.quiet:
            more = f" and {count(len(names) - 1, 'more tensor')}" if len(names) > 1 else ""
            verb = what if len(names) == 1 else what.replace("is", "are", 1)
            lines.append(f"{escape_for_terminal(names[0])}{more} {verb}: compared with nothing")
    beside = "its values alone" if found.against is None else f"against {found.against[:12]}"
    if found.suspects:
        tensors = len({(one.file, one.tensor) for one in found.suspects})
        looks = f"{count(tensors, 'tensor')} {'looks' if tensors == 1 else 'look'} wrong"
        lines.append(f"{looks} in {found.revision[:12]} ({beside})")
    elif not session.quiet:
        lines.append(f"{session.paint('green', 'ok')}: no tensor looks wrong ({beside})")
    return "\n".join(lines)
