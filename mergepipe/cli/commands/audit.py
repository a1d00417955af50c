"""`mp audit`: who did what, when, of what, and what it took."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import date, duration, short
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.auditing import AuditEntry


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp audit --since yesterday
        mp audit --since 2026-11-01 --until 2026-12-01 --json > november.json
    """
    command(app, "audit", UPKEEP, examples=examples)(audit)


def audit(
    session: Session,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help='As yesterday, "2 weeks ago", 2026-11-22.'),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Not later than this.")
    ] = None,
) -> None:
    """List what was done, oldest first: commits, merges with inputs and costs, pushes, purges.

    Pushes are those that mp serve took, or refused, here. What a merge took is known where it ran.
    """
    with session.repository() as repository:
        entries = repository.audit(since, until)
    session.emit(entries, "\n".join(line for each in entries for line in _lines(each)))


def _lines(entry: "AuditEntry") -> Iterator[str]:
    at = f" {entry.commit[:12]}" if entry.commit else ""
    who = escape_for_terminal(entry.who or "anyone")
    detail = escape_for_terminal(entry.detail)
    if entry.kind == "push":
        moved = f"{escape_for_terminal(entry.ref or '')} {entry.outcome}"
        by = f", made by {escape_for_terminal(entry.author)}" if entry.author else ""
        detail = f"{moved}{by}, {format_size(entry.bytes or 0)} from {entry.address}" + (
            f": {detail}" if detail else ""
        )
    yield f"{date(entry.time, 0)}  {entry.kind:6} {who}:{at} {detail}".rstrip()
    if entry.kind != "merge":
        return
    inputs = ", ".join(
        escape_for_terminal(each.name)
        + (f" ({short(bytes.fromhex(each.commit))})" if each.commit else "")
        + (" as base" if each.role == "base" else "")
        for each in entry.inputs
    )
    yield f"    {entry.method} of {inputs}"
    asked = [
        f"{name} {value}"
        for name, value in (
            ("budget", entry.budget),
            ("total budget", entry.budget_total),
            ("share", entry.max_share),
        )
        if value
    ]
    if entry.seconds is not None:
        asked.append(
            f"read {format_size(entry.expert_bytes_read or 0)} of the experts and "
            f"{format_size(entry.base_bytes_read or 0)} of the base, in {duration(entry.seconds)} "
            f"on {entry.device}"
        )
    if asked:
        yield f"    {'; '.join(asked)}"
