"""`mp branch`: list, make and remove branches."""

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import Delete, More, RevisionOrHead, named, refuse_more
from mergepipe.cli.session import Session
from mergepipe.cli.text import ABBREVIATED, short, table, title
from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergepipe.repository.refs import RefStore


class BranchDocument(msgspec.Struct, frozen=True):
    """A branch; `mp branch --json` lists them.

    current  HEAD is on it
    remote   the remote that had it at the last fetch or push; null for one of this repository
    """

    name: str
    commit: str
    current: bool
    remote: str | None = None


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp branch                  list them
        mp branch -l 'team/*'      those called so
        mp branch -r               those that remotes had at the last fetch
        mp branch try code~1       make one at a commit
        mp branch code origin/code one here of one there
        mp branch -m try tried     rename it
        mp branch -d try other     remove them
    """
    command(app, "branch", HISTORY, examples=examples)(branch)


def branch(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=completion.branches)
    ] = None,
    revision: RevisionOrHead = "HEAD",
    more: More = None,
    delete: Delete = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "-f",
            help="Move one that is there; remove one whose commits nothing else holds.",
            show_default=False,
        ),
    ] = False,
    move: Annotated[
        bool,
        typer.Option(
            "--move",
            "-m",
            help="Rename: -m NEW the current one, -m OLD NEW another.",
            show_default=False,
        ),
    ] = False,
    remotes: Annotated[
        bool,
        typer.Option(
            "--remotes",
            "-r",
            help="List those that remotes had when last asked.",
            show_default=False,
        ),
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", "-a", help="List those here, then those.", show_default=False),
    ] = False,
    pattern: Annotated[
        str | None,
        typer.Option("--list", "-l", metavar="PATTERN", help="List those called like 'team/*'."),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", metavar="N", min=0, help="List at most N."),
    ] = None,
) -> None:
    """List the branches, make one at REV, rename or remove one. HEAD stays; see `mp switch`."""
    listing = remotes or everything or pattern is not None or number is not None
    if name is None:
        if delete:
            raise UsageError("which branch?", "mp branch -d NAME")
        if move:
            raise UsageError("which name?", "mp branch -m NEW, or mp branch -m OLD NEW")
        _list(
            session,
            here=everything or not remotes,
            remotes=remotes or everything,
            pattern=pattern,
            number=number,
        )
        return
    if listing:
        raise UsageError(
            "--remotes, --all, --list and --number list branches, and take no name",
            f"mp push REMOTE :{name} removes one there"
            if delete
            else f"mp branch {name} REMOTE/{name} makes one here of one there",
        )
    if delete:
        _delete(session, named(name, revision, more), force=force)
        return
    refuse_more(more, "branch")
    if move:
        _rename(session, *((None, name) if revision == "HEAD" else (name, revision)))
        return
    with session.repository() as repository:
        identity = repository.branch(name, revision, force=force)
    text = f"Branch {session.paint('green', name)} is at {short(identity)}"
    document = BranchDocument(name, identity.hex(), current=False)
    session.emit(document, "" if session.quiet else text)


def _delete(session: Session, names: list[str], *, force: bool) -> None:
    removed = []
    with session.repository() as repository:
        there = repository.branches()
        # One that is not there is told before any is removed.
        for name in sorted(names, key=there.__contains__):
            identity = repository.delete_branch(name, force=force)
            removed.append(BranchDocument(name, identity.hex(), current=False))
            at = short(identity)
            text = f"Removed branch {name}, which was at {at}: `mp branch {name} {at}` undoes it"
            if force:
                text += "\nits log keeps that commit for now; `mp gc --no-reflog` lets it go"
            if not (session.quiet or session.as_json):
                print(text)
    session.emit(removed if len(removed) > 1 else removed[0], "")


def _rename(session: Session, old: str | None, new: str) -> None:
    with session.repository() as repository:
        was = old or repository.refs.head().short_branch
        at = repository.rename_branch(new, old)
        current = repository.refs.head().short_branch == new
    text = f"Branch {was} is called {session.paint('green', new)} now"
    document = BranchDocument(new, at.hex() if at else "", current=current)
    session.emit(document, "" if session.quiet else text)


def _list(
    session: Session, *, here: bool, remotes: bool, pattern: str | None, number: int | None
) -> None:
    with session.repository() as repository:
        head = repository.refs.head()
        branches = _documents(repository.refs, pattern or "*", here=here, remotes=remotes)
        documents = list(islice(branches, None if number is None else min(number, sys.maxsize)))
        rows = [
            (
                ("* " if document.current else "  ") + document.name,
                document.commit[:ABBREVIATED],
                title(repository.objects.commit(ObjectId(bytes.fromhex(document.commit))).message),
            )
            for document in documents
        ]
    if here and pattern is None and head.branch is None and head.commit is not None:
        rows.insert(0, ("* (detached HEAD)", short(head.commit), ""))
    lines = table(rows).splitlines() if rows else []
    text = "\n".join(
        session.paint("green", line) if line.startswith("*") else line for line in lines
    )
    session.emit(documents, text)
    if not rows and (pattern is not None or number == 0):
        session.say("no branch is called so")
    elif not rows:
        session.say(
            "no branches yet: the first commit makes one"
            if here
            else "nothing known of any remote's branches yet: mp fetch brings them"
        )


def _documents(
    refs: "RefStore", pattern: str, *, here: bool, remotes: bool
) -> "Iterator[BranchDocument]":
    from mergepipe.repository.refnames import HEADS, REMOTES

    current = refs.head().branch
    if here:
        for ref, identity in refs.matching(HEADS, pattern):
            yield BranchDocument(ref.removeprefix(HEADS), identity.hex(), ref == current)
    if remotes:
        for ref, identity in refs.matching(REMOTES, pattern):
            name = ref.removeprefix(REMOTES)
            remote = name.partition("/")[0]
            yield BranchDocument(name, identity.hex(), current=False, remote=remote)
