"""`mp fsck`: check a repository, and repair what can be repaired."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import merge_options
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import ABBREVIATED, count
from mergepipe.errors import Corruption
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.problems import Report

_SHOWN = ("asked", "lost")  # of NoteKind: remotes that --repair asked, refs that are gone


class ProblemDocument(msgspec.Struct, frozen=True):
    """Something wrong, or worth knowing. `id`: of a pack, block or object, or the name of a ref."""

    kind: str
    id: str
    detail: str


class FsckDocument(msgspec.Struct, frozen=True):
    """`mp fsck --json`. `notes` are no problems; `repaired` says what --repair did.

    `unread_bytes`: of packs, which only --read-data and --repair look into.
    """

    ok: bool
    problems: tuple[ProblemDocument, ...]
    notes: tuple[ProblemDocument, ...]
    repaired: tuple[str, ...]
    unread_bytes: int = 0


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp fsck\nmp fsck --read-data\nmp fsck --read-data=5%\nmp fsck --repair"
    command(app, "fsck", UPKEEP, examples=examples)(fsck)


def fsck(
    session: Session,
    read_data: Annotated[
        bool,
        typer.Option(
            "--read-data",
            help="Also read every byte: each record's checksum, each block's id. "
            "--read-data=5% (or =20GiB) reads a part, and the next call the next part.",
            show_default=False,
        ),
    ] = False,
    read_part: Annotated[
        str | None,
        typer.Option(
            "--read-part",
            metavar="PART",
            help="Read so much, 5% or 20GiB, after what was read the last time: --read-data=5%.",
            show_default=False,
            hidden=True,  # the parser's own word for it; people type --read-data=5%
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Read all data; rebuild the index, set damaged packs aside, and bring what is "
            "missing from the files here and from remotes; restore damaged refs. Nothing is "
            "deleted.",
            show_default=False,
        ),
    ] = False,
    on: merge_options.On = None,
) -> int:
    """Check refs, history, packs and index. Exits with 12 if something is wrong."""
    with session.repository() as repository, repository.on(on), session.progress() as progress:
        reading = read_data if read_data or read_part is None else read_part
        report = repository.fsck(read_data=reading, repair=repair, progress=progress)
    document = FsckDocument(
        ok=report.ok,
        problems=tuple(
            ProblemDocument(problem.kind.value, problem.id, problem.detail)
            for problem in report.problems
        ),
        notes=tuple(
            ProblemDocument(note.kind.value, note.id, note.detail) for note in report.notes
        ),
        repaired=tuple(report.repaired),
        unread_bytes=report.unread_bytes,
    )
    session.emit(document, _text(session, report))
    if not report.ok:
        session.say(_advice(report, repair=repair))
    return 0 if report.ok else Corruption.exit_code


def _text(session: Session, report: "Report") -> str:
    lines = [f"repaired: {escape_for_terminal(done)}" for done in report.repaired]
    for problem in report.problems:
        what = session.paint("red", f"{problem.kind.value} {_name(problem.id)}")
        detail = problem.detail.removeprefix(f"{problem.id}: ")  # told in `what` already
        lines.append(f"{what}: {escape_for_terminal(detail)}")
    lines += [
        f"{note.kind.value} {_name(note.id)}: {escape_for_terminal(note.detail)}"
        for note in report.notes
        if session.verbose or note.kind.value in _SHOWN
    ]
    if report.problems:
        lines.append(f"{count(len(report.problems), 'problem')} found")
    elif not session.quiet:
        notes = f"; {count(len(report.notes), 'note')}, -v lists them" if report.notes else ""
        lines.append(f"{session.paint('green', 'ok')}: no problems ({_depth(report)}){notes}")
    return "\n".join(lines)


def _depth(report: "Report") -> str:
    if not report.unread_bytes:
        return "all data read"
    unread = format_size(report.unread_bytes)
    return f"refs, history, index and lists of packs; {unread} of data not read: --read-data does"


def _advice(report: "Report", *, repair: bool) -> str:
    """What to do about problems that are left."""
    from mergepipe.repository.problems import ProblemKind

    if not repair:
        return "`mp fsck --repair` puts right what can be put right without guessing"
    kinds = {problem.kind for problem in report.problems}
    ways = []
    if report.lacks:
        ways.append(
            "what is missing comes back with a commit of the same files (mp commit PATH), or from "
            "a remote that has it (mp remote add NAME URL, mp fetch NAME --heal)"
        )
    if kinds & {ProblemKind.REF, ProblemKind.HEAD, ProblemKind.REFLOG}:
        ways.append("mp branch -f NAME REV puts a branch where you want it (-v lists lost commits)")
    return "; ".join(ways) or "this release cannot mend it"


def _name(identity: str) -> str:
    """An id, shortened as everywhere; a ref's name as it is."""
    is_id = len(identity) == 64 and set(identity) <= set("0123456789abcdef")
    return identity[:ABBREVIATED] if is_id else escape_for_terminal(identity)
