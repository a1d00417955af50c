"""`mp purge`: remove models for good, here and on remotes, with a report to sign."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.purge_text import statement, summary, warnings
from mergepipe.cli.session import Session
from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.repository.purge_report import PurgeReport


class PurgeDocument(msgspec.Struct, frozen=True):
    """`mp purge --json`: what went here, and at each remote that was asked, by its name."""

    here: PurgeReport
    remotes: dict[str, PurgeReport]


class LiftDocument(msgspec.Struct, frozen=True):
    """`mp purge --lift --json`: commits whose models may come back."""

    lifted: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp purge js~1 --reason "Licence withdrawn"
        mp purge js~1 --reason "Licence withdrawn" --remote origin --report removal.txt --yes
    """
    command(app, "purge", UPKEEP, examples=examples)(purge)


def purge(
    session: Session,
    revisions: Annotated[
        list[str],
        typer.Argument(metavar="REV...", help="Whose models.", autocompletion=completion.revisions),
    ],
    reason: Annotated[
        str,
        typer.Option("--reason", "-m", metavar="TEXT", help="Why: told whenever it is asked for."),
    ] = "",
    remotes: Annotated[
        list[str] | None,
        typer.Option(
            "--remote",
            metavar="NAME",
            help="There too, where receive.allow_purge is set; again for another.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write what was removed, to sign; FILE.json has every id.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only say what would go.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say what would go.", show_default=False)
    ] = False,
    lift: Annotated[
        bool,
        typer.Option("--lift", help="Let a purged model come back instead.", show_default=False),
    ] = False,
) -> None:
    """Remove models for good: every byte that only they have, in packs, statistics and notes.

    Branches that stand at one go back, tags are removed. Commits keep their place in history, and
    merges their manifests; what other models have in common with them stays. Afterwards every
    command, push and fetch says who removed it, when and why, and none brings it back.
    """
    if lift:
        _lift(session, revisions)
        return
    if yes and dry_run:
        raise UsageError("--yes and --dry-run say two different things")
    with session.repository() as repository, session.progress(kernels=False) as progress:
        result = repository.purge(
            *revisions,
            reason=reason,
            remotes=remotes or (),
            dry_run=not yes,
            credentials=session.credentials(repository.directory),
            progress=progress,
        )
    document = PurgeDocument(result.here, result.remotes)
    reports = [*result.remotes.values(), result.here]
    if report is not None:
        data = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        report.with_name(f"{report.name}.json").write_bytes(data)
        report.write_text(statement(reports, data), encoding="utf-8")
    text = "\n".join(line for each in reports for line in summary(each))
    session.emit(document, "" if session.quiet else text)
    for each in reports:
        for warning in warnings(each):
            session.say(f"warning: {warning}")
    if not yes:
        session.say("nothing was removed: --yes does it")


def _lift(session: Session, revisions: list[str]) -> None:
    with session.repository() as repository:
        lifted = [stone for each in revisions for stone in repository.lift_purge(each)]
    document = LiftDocument(tuple(stone.commit.hex() for stone in lifted))
    text = "\n".join(
        f"{stone.commit.hex()[:12]} may come back; it was {quoted(str(stone))}" for stone in lifted
    )
    session.emit(document, "" if session.quiet else text)
