"""`mp replay`: run a merge again, and compare every id."""

import time

import msgspec
import typer

from mergepipe.cli import merge_options
from mergepipe.cli.command import command
from mergepipe.cli.panels import MERGING
from mergepipe.cli.parameters import Revision
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, short
from mergepipe.names import escape_for_terminal

_MOST_NAMED = 10


class ReplayDocument(msgspec.Struct, frozen=True):
    """`mp replay --json`. `snapshot` and `manifest`: what came out now. `tensors`: which differ."""

    same: bool
    snapshot: str
    manifest: str
    commit: str
    tensors: tuple[str, ...]
    expert_bytes_read: int
    base_bytes_read: int
    seconds: float


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "replay", MERGING, examples="mp replay merged")(replay)


def replay(session: Session, revision: Revision, on: merge_options.On = None) -> int:
    """Run the merge behind a commit again, from its plan, and compare every id.

    Nothing is taken from earlier results, and nothing is written. Exits with 1 if anything came
    out otherwise.
    """
    began = time.monotonic()
    with session.repository() as repository, repository.on(on):
        identity = repository.resolve(revision)
        with session.progress() as progress:
            replayed = repository.replay(revision, progress)
    document = ReplayDocument(
        same=replayed.same,
        snapshot=replayed.snapshot.hex(),
        manifest=replayed.manifest.hex(),
        commit=identity.hex(),
        tensors=replayed.tensors,
        expert_bytes_read=replayed.readings.expert_bytes,
        base_bytes_read=replayed.readings.base_bytes,
        seconds=round(time.monotonic() - began, 3),
    )
    session.emit(document, _text(session, document, short(identity)))
    return 0 if replayed.same else 1


def _text(session: Session, found: ReplayDocument, at: str) -> str:
    if found.same:
        took = "" if session.quiet else f", in {duration(found.seconds)}"
        return (
            f"{session.paint('green', 'same')}: {session.paint('yellow', at)} comes out of its "
            f"plan again, snapshot {found.snapshot[:12]}, manifest {found.manifest[:12]}{took}"
        )
    lines = [
        f"{session.paint('red', 'different')}: the plan of {at} now gives snapshot "
        f"{found.snapshot[:12]}, manifest {found.manifest[:12]}",
        f"{count(len(found.tensors), 'tensor')} came out otherwise",
        *(f"  {escape_for_terminal(name)}" for name in found.tensors[:_MOST_NAMED]),
    ]
    if len(found.tensors) > _MOST_NAMED:
        lines.append(f"  {len(found.tensors) - _MOST_NAMED:,} more")
    return "\n".join(lines)
