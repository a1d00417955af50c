"""`mp reflog`: where a branch or HEAD was, move by move."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.session import Session
from mergepipe.cli.text import date, short
from mergepipe.names import escape_for_terminal


class ExpiredDocument(msgspec.Struct, frozen=True):
    """`mp reflog --expire --json`: how many moves were dropped."""

    expired: int


class ReflogDocument(msgspec.Struct, frozen=True):
    """One move of a ref. `old` is null where it was made, `new` where it was removed."""

    old: str | None
    new: str | None
    author: str
    time: int
    utc_offset: int
    why: str


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app,
        "reflog",
        HISTORY,
        examples="mp reflog\nmp reflog code\nmp reflog --expire '90 days ago'",
    )(reflog)


def reflog(
    session: Session,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="HEAD if not given; for --expire all of them.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    expire: Annotated[
        str | None,
        typer.Option(
            "--expire",
            metavar="WHEN",
            help='Drop moves before this, as "90 days ago"; each ref\'s last one stays.',
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show where a branch, a tag or HEAD was, newest first.

    Each line begins with a revision that brings it back: `mp reset main@{1}`.
    """
    if expire is not None:
        _expire(session, ref, expire)
        return
    ref = ref or "HEAD"
    with session.repository() as repository:
        entries = repository.reflog(ref)
        damaged = repository.damaged_log(ref)
    documents = [
        ReflogDocument(
            old=None if entry.old is None else entry.old.hex(),
            new=None if entry.new is None else entry.new.hex(),
            author=entry.who.author,
            time=entry.who.time,
            utc_offset=entry.who.utc_offset,
            why=entry.why,
        )
        for entry in entries
    ]
    lines = []
    for number, entry in enumerate(entries):
        at = "(removed)".ljust(12) if entry.new is None else short(entry.new)
        when = f"  {date(entry.who.time, entry.who.utc_offset)}" if session.verbose else ""
        why = escape_for_terminal(entry.why)
        lines.append(f"{session.paint('yellow', at)} {ref}@{{{number}}}:{when} {why}")
    session.emit(documents, "\n".join(lines))
    if damaged is not None:
        session.say(
            f"warning: line {damaged} of it is damaged, and left out; mp fsck --repair mends it"
        )


def _expire(session: Session, ref: str | None, before: str) -> None:
    from mergepipe.repository.dates import parse_moment

    with session.repository() as repository:
        count = repository.expire_reflog(parse_moment(before, repository.clock()), ref)
    text = f"Dropped {count:,} moves; mp gc frees what only they named"
    session.emit(ExpiredDocument(count), "" if session.quiet else text)
