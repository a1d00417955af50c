"""`mp tag`: names for commits that do not move."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import Delete, More, RevisionOrHead, named, refuse_more
from mergepipe.cli.session import Session
from mergepipe.cli.text import short, table, title
from mergepipe.errors import UsageError


class TagDocument(msgspec.Struct, frozen=True):
    """A tag; `mp tag --json` lists them."""

    name: str
    commit: str


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app, "tag", HISTORY, examples="mp tag v1\nmp tag v0 main~3 -m 'As published'\nmp tag -d v0"
    )(tag)


def tag(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=completion.tags)
    ] = None,
    revision: RevisionOrHead = "HEAD",
    more: More = None,
    delete: Delete = False,
    message: Annotated[
        str,
        typer.Option(
            "--message",
            "-m",
            metavar="MSG",
            help="Kept in the tag's log, in this repository; listed with it.",
            show_default=False,
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Move one that is there.", show_default=False)
    ] = False,
) -> None:
    """List the tags, make one at REV, or remove one."""
    if name is None:
        if delete:
            raise UsageError("which tag?", "mp tag -d NAME")
        if message:
            raise UsageError("which tag?", "mp tag NAME -m MSG")
        _list(session)
        return
    if delete:
        _delete(session, named(name, revision, more))
        return
    refuse_more(more, "tag")
    with session.repository() as repository:
        identity = repository.tag(name, revision, force=force, message=message)
    text = f"Tag {session.paint('green', name)} is at {short(identity)}"
    session.emit(TagDocument(name, identity.hex()), "" if session.quiet else text)


def _delete(session: Session, names: list[str]) -> None:
    removed = []
    with session.repository() as repository:
        there = repository.tags()
        # One that is not there is told before any is removed.
        for name in sorted(names, key=there.__contains__):
            identity = repository.delete_tag(name)
            removed.append(TagDocument(name, identity.hex()))
            if not (session.quiet or session.as_json):
                print(f"Removed tag {name}, which was at {short(identity)}")
    session.emit(removed if len(removed) > 1 else removed[0], "")


def _list(session: Session) -> None:
    from mergepipe.repository.branches import tag_message
    from mergepipe.repository.refnames import TAGS

    with session.repository() as repository:
        tags = repository.refs.list(TAGS)
        rows = [
            (
                name.removeprefix(TAGS),
                short(at),
                title(tag_message(repository.refs, name) or repository.objects.commit(at).message),
            )
            for name, at in tags.items()
        ]
    documents = [TagDocument(name.removeprefix(TAGS), at.hex()) for name, at in tags.items()]
    session.emit(documents, table(rows) if rows else "")
    if not rows:
        session.say("no tags yet: `mp tag NAME` makes one at HEAD")
