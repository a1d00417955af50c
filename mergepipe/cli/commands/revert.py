"""`mp revert`: take back what a commit did, by another commit."""

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import MODEL
from mergepipe.cli.parameters import Revision
from mergepipe.cli.session import Session
from mergepipe.cli.text import short, title


class RevertDocument(msgspec.Struct, frozen=True):
    """`mp revert --json`: the new commit, and the one whose changes it takes back."""

    commit: str
    reverted: str
    branch: str | None


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "revert", MODEL, examples="mp revert HEAD\nmp revert main~2")(revert)


def revert(session: Session, revision: Revision) -> None:
    """Commit the model as it is without what REV changed, file by file.

    A file that was changed again since is refused. `mp reset` goes back without a new commit.
    """
    with session.repository() as repository, session.progress() as progress:
        reverted = repository.resolve(revision)
        identity = repository.revising.revert(revision, progress=progress)
        branch = repository.refs.head().short_branch
        message = repository.objects.commit(identity).message
    where, at = branch or "detached HEAD", short(identity)
    text = f"[{session.paint('green', where)} {session.paint('yellow', at)}] {title(message)}"
    document = RevertDocument(identity.hex(), reverted.hex(), branch)
    session.emit(document, "" if session.quiet else text)
