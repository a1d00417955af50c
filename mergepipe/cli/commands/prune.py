"""`mp prune`: keep some models of a branch, and free the room of the others."""

from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.grace_text import kept_text
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import count
from mergepipe.errors import UsageError
from mergepipe.sizes import format_size


class PruneDocument(msgspec.Struct, frozen=True):
    """`mp prune --json`: the commits whose models go, and what that freed, as `gc` counts it."""

    commits: tuple[str, ...]
    freed_bytes: int
    packs_removed: int
    packs_rewritten: int
    dry_run: bool
    kept_bytes: int
    kept_until: int | None


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp prune --keep-last 7 --dry-run
        mp prune prod --keep-last 3 --keep-daily 14 --keep-weekly 8
        mp prune --keep-last 7 --later
    """
    command(app, "prune", UPKEEP, examples=examples)(prune)


def prune(
    session: Session,
    branches: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BRANCH...",
            help="Of these branches only; of all if none is given.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", metavar="N", min=1, help="The newest N of each branch."),
    ] = None,
    keep_daily: Annotated[
        int | None,
        typer.Option("--keep-daily", metavar="N", min=0, help="The last one of N days."),
    ] = None,
    keep_weekly: Annotated[
        int | None,
        typer.Option("--keep-weekly", metavar="N", min=0, help="The last one of N weeks."),
    ] = None,
    keep_tags: Annotated[
        bool, typer.Option("--keep-tags/--no-keep-tags", help="What tags name.")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Only say what it would do.", show_default=False),
    ] = False,
    later: Annotated[
        bool,
        typer.Option(
            "--later",
            help="Free them after gc.grace (2 weeks), not now; till then `mp undo` has them back.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Let go of the models of old commits, and free what only they needed.

    History stays: every commit with its id, message and descent. Kept besides what the options say:
    the tip of every branch, what tags name, what a kept model was trained from, and what a kept
    merge was made of, so that it still replays.
    """
    from mergepipe.repository.retention import Retention

    if keep_last is keep_daily is keep_weekly is None:
        raise UsageError("say what to keep", "mp prune --keep-last 7 --dry-run shows what goes")
    retention = Retention(keep_last or 1, keep_daily or 0, keep_weekly or 0)
    with session.repository() as repository, session.progress(kernels=False) as progress:
        pruned = repository.prune(
            branches or (),
            retention,
            keep_tags=keep_tags,
            dry_run=dry_run,
            grace_s=None if later else 0,
            progress=progress,
        )
    freed = pruned.collected
    document = PruneDocument(
        commits=tuple(each.hex() for each in pruned.commits),
        freed_bytes=freed.freed_bytes,
        packs_removed=freed.packs_removed,
        packs_rewritten=freed.packs_rewritten,
        dry_run=dry_run,
        kept_bytes=freed.kept_bytes,
        kept_until=int(freed.kept_until_s) if freed.kept_bytes else None,
    )
    verb = "Would let go of" if dry_run else "Let go of"
    text = (
        f"{verb} {count(len(pruned.commits), 'model')}, {format_size(freed.freed_bytes)}: "
        f"{count(freed.packs_removed, 'pack')} removed, {freed.packs_rewritten:,} rewritten"
    )
    if not pruned.commits and not freed.freed_bytes:
        text = "Nothing to let go of"
    session.emit(document, "" if session.quiet else text)
    if freed.kept_bytes:
        session.say(kept_text(freed, "mp gc --prune=now"))
