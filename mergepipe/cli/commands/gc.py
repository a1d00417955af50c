"""`mp gc`: free what nothing needs."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.grace_text import kept_text
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import count
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size


class GcDocument(msgspec.Struct, frozen=True):
    """`mp gc --json`. `freed_bytes`: packs removed less packs written.

    `incomplete`: the disk was too full to rewrite all; run it again. `unreadable`: packs that were
    left alone because they are damaged. `kept_bytes`: what nothing needs and is too young to go;
    all of it may at `kept_until` (Unix seconds; null if there is none).
    """

    freed_bytes: int
    packs_removed: int
    packs_rewritten: int
    dry_run: bool
    incomplete: bool
    unreadable: tuple[str, ...]
    kept_bytes: int
    kept_until: int | None


class KeeperDocument(msgspec.Struct, frozen=True):
    """A root that keeps it. `at`: where it stands; `via`: the commit that needs it."""

    kind: str
    name: str
    at: str
    via: str


class WhyDocument(msgspec.Struct, frozen=True):
    """`mp gc --why --json`. Without keepers, the next gc frees it.

    `leaned_on`: only as what blocks of `via` lean on. `mentioned`: what names it and keeps nothing.
    """

    id: str
    kept: bool
    keepers: tuple[KeeperDocument, ...]
    leaned_on: bool
    mentioned: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app,
        "gc",
        UPKEEP,
        examples="mp gc --dry-run\nmp gc\nmp gc --prune=now\nmp gc --why 3fa9c2d1\n"
        "mp gc --remote origin",
    )(gc)


def gc(
    session: Session,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Only say what it would do.", show_default=False),
    ] = False,
    no_reflog: Annotated[
        bool,
        typer.Option(
            "--no-reflog",
            help="Also free what only reflogs name, such as commits before a reset.",
            show_default=False,
        ),
    ] = False,
    prune: Annotated[
        str | None,
        typer.Option(
            "--prune",
            metavar="now|DURATION",
            help="Free what is older than this; without it, than gc.grace (2 weeks).",
            show_default=False,
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote",
            metavar="NAME",
            help="Not here but in this remote, which is a bucket.",
            show_default=False,
        ),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(
            "--why",
            metavar="ID",
            help="Free nothing; say what keeps a commit, object, block or pack.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Free what no branch, tag, reflog or worktree needs.

    What was stored or pruned lately stays for a time of grace. Waits until nobody commits. What a
    crash left behind is removed too. In a bucket (--remote) packs go that no branch or tag there
    needs; the first run only notes them, and a time of grace later another removes them.
    """
    from mergepipe.repository.durations import parse_duration

    if remote is not None and (no_reflog or why is not None):
        raise UsageError("--remote does not go with --no-reflog or --why: a bucket has no reflogs")
    if why is not None:
        _tell_why(session, why)
        return
    grace_s = None if prune is None else parse_duration(prune)
    with session.repository() as repository, session.progress(kernels=False) as progress:
        if remote is None:
            done = repository.gc(
                dry_run=dry_run, keep_reflog=not no_reflog, grace_s=grace_s, progress=progress
            )
        else:
            done = repository.gc_bucket(
                remote,
                dry_run=dry_run,
                grace_s=grace_s,
                credentials=session.credentials(repository.directory),
                progress=progress,
            )
    document = GcDocument(
        freed_bytes=done.freed_bytes,
        packs_removed=done.packs_removed,
        packs_rewritten=done.packs_rewritten,
        dry_run=done.dry_run,
        incomplete=done.incomplete,
        unreadable=tuple(pack.hex() for pack in done.unreadable),
        kept_bytes=done.kept_bytes,
        kept_until=int(done.kept_until_s) if done.kept_bytes else None,
    )
    would = "Would free" if dry_run else "Freed"
    text = (
        f"{would} {format_size(done.freed_bytes)}: {count(done.packs_removed, 'pack')} removed, "
        f"{done.packs_rewritten:,} rewritten"
    )
    if not done.packs_removed and not done.packs_rewritten:
        text = "Nothing to free"
    session.emit(document, "" if session.quiet else text)
    if done.kept_bytes:
        there = "" if remote is None else f" --remote {remote}"
        session.say(kept_text(done, f"mp gc{there} --prune=now"))
    if done.incomplete:
        session.say("the disk was too full to rewrite all packs: run `mp gc` again")
    if done.unreadable:
        session.say(f"{count(len(done.unreadable), 'damaged pack')} left alone: see `mp fsck`")


def _tell_why(session: Session, what: str) -> None:
    with session.repository() as repository:
        kept = repository.why_kept(what)
    keepers = tuple(
        KeeperDocument(each.kind, each.name, each.at.hex(), each.via.hex()) for each in kept.keepers
    )
    document = WhyDocument(what, bool(keepers), keepers, kept.leaned_on, kept.mentioned)
    lines = []
    for each in keepers:
        if each.kind == "grace":
            lines.append(f"grace {each.name}: it is younger than gc.grace, or needed by what is")
            continue
        need = "its blocks lean on it" if kept.leaned_on else "needs it"
        via = "" if each.via == each.at else f", whose history has {each.via[:12]}, which {need}"
        lines.append(f"{each.kind} {escape_for_terminal(each.name)} at {each.at[:12]}{via}")
    if not keepers:
        lines.append("nothing keeps it: mp gc frees it")
    lines += [
        f"({escape_for_terminal(each)} names it, and keeps nothing)" for each in kept.mentioned
    ]
    session.emit(document, "\n".join(lines))
