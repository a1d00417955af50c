"""`mp descendants`: the models that came from a revision."""

from typing import TYPE_CHECKING

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.history_text import CommitText, decorations
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import Revision
from mergepipe.cli.session import Session
from mergepipe.cli.text import count

if TYPE_CHECKING:
    from mergepipe.ids import ObjectId


class DescendantDocument(msgspec.Struct, frozen=True):
    """One commit of `mp descendants --json`; `names`: the refs that stand at it."""

    commit: str
    parents: tuple[str, ...]
    trained_from: str | None
    merge: bool
    message: str
    names: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "descendants", HISTORY, examples="mp descendants experts/law~3")(descendants)


def descendants(session: Session, revision: Revision) -> None:
    """List every commit whose model came from REV: trained from it, or merged with it.

    Of what branches, tags and the branches of remotes hold; newest first.
    """
    with session.repository() as repository:
        commits = list(repository.descendants(revision))
        names = decorations(repository.refs)
        text = CommitText(session.paint, names)

    def at(identity: "ObjectId") -> tuple[str, ...]:
        return tuple(names.get(identity, ()))

    documents = [
        DescendantDocument(
            commit=identity.hex(),
            parents=tuple(parent.hex() for parent in commit.parents),
            trained_from=None if commit.trained_from is None else commit.trained_from.hex(),
            merge=commit.manifest is not None,
            message=commit.message,
            names=at(identity),
        )
        for identity, commit in commits
    ]
    lines = [text.line(*each) for each in commits]
    if not lines and not session.quiet:
        lines = [f"nothing came from {revision}"]
    elif session.verbose:
        lines.append(count(len(commits), "commit"))
    session.emit(documents, "\n".join(lines))
