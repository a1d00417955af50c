"""`mp push`: send commits to a remote and move its branches and tags."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.hub import push_to_hub
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, short, table
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.results import PushResult
    from mergepipe.transfer.push_refs import Decision


class PushedRef(msgspec.Struct, frozen=True):
    """One ref of the remote: where it was and is (null: nowhere), and what kind of move that is.

    `move`: unchanged, created, fast-forward, forced or deleted.
    """

    name: str
    old: str | None
    new: str | None
    move: str


class PushDocument(msgspec.Struct, frozen=True):
    """`mp push --json`.

    `raw_bytes`: size of the files of the commits that were new to the remote. `blocks`: those sent;
    `blocks_held`: those that the remote had, though not by these commits. `notes`: commits of
    which it learnt notes.
    """

    remote: str
    url: str
    refs: tuple[PushedRef, ...]
    bytes_sent: int
    packs_sent: int
    commits: int
    objects: int
    blocks: int
    blocks_held: int
    raw_bytes: int
    seconds: float
    notes: int


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp push
        mp push origin main v1.0
        mp push origin experiment:shared/experiment
        mp push backup --all --tags
        mp push origin --delete experiment
        mp push serving --release prod
        mp push /mnt/disk/llama main
        mp push hf://org/name merged
    """
    command(app, "push", SHARING, examples=examples)(push)


def push(
    session: Session,
    remote: Annotated[
        str | None,
        typer.Argument(
            metavar="REMOTE",
            help="A remote's name or URL; origin if none is given.",
            autocompletion=completion.remotes,
            show_default=False,
        ),
    ] = None,
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REF...",
            help="Branches, tags, SOURCE:TARGET; the current branch if none is given.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    all_branches: Annotated[
        bool, typer.Option("--all", help="Push every branch.", show_default=False)
    ] = False,
    tags: Annotated[
        bool, typer.Option("--tags", help="Push every tag.", show_default=False)
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", "-d", help="Remove REFs there.", show_default=False)
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", help="Move refs also where commits get lost.", show_default=False
        ),
    ] = False,
    force_with_lease: Annotated[
        bool,
        typer.Option(
            "--force-with-lease",
            help="Force, if the remote is where refs/remotes/ says it was.",
            show_default=False,
        ),
    ] = False,
    lease: Annotated[
        list[str] | None,
        typer.Option(
            "--lease",
            metavar="REF[:COMMIT]",
            help="Force this REF, if it is at COMMIT there.",
            show_default=False,
        ),
    ] = None,
    release: Annotated[
        bool,
        typer.Option(
            "--release",
            help="Only the models themselves, with their manifests: no history, no experts.",
            show_default=False,
        ),
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip the pre-push hook.", show_default=False)
    ] = False,
) -> None:
    """Send what a remote lacks, then move its branches and tags.

    Only blocks that it does not have travel, encoded as they are stored. A push that was cut goes
    on where it was. To hf://org/name[@branch] go the files of one revision (HEAD); with --force,
    files that are there beside them go.
    """
    import time

    from mergepipe.transfer.push_refs import PushOptions
    from mergepipe.transfer.urls import is_hub

    if remote is not None and is_hub(remote):
        others = all_branches or tags or delete or force_with_lease or bool(lease)
        push_to_hub(
            session,
            remote,
            list(refs or ()),
            exact=force,
            others=others,
            verify=not no_verify,
        )
        return
    options = PushOptions(
        refs=tuple(refs or ()),
        all_branches=all_branches,
        tags=tags,
        delete=delete,
        force=force,
        lease_all=force_with_lease,
        leases=tuple(lease or ()),
        release=release,
    )
    began = time.monotonic()
    with session.repository() as repository, session.progress() as progress:
        credentials = session.credentials(repository.directory)
        result = repository.push(
            remote, options, credentials=credentials, verify=not no_verify, progress=progress
        )
    seconds = time.monotonic() - began
    session.emit(
        _document(result, seconds), "" if session.quiet else _text(session, result, seconds)
    )


def _document(result: "PushResult", seconds: float) -> PushDocument:
    pushed = result.pushed
    return PushDocument(
        remote=result.remote or result.url,
        url=result.url,
        refs=tuple(
            PushedRef(ref.name, _hex(ref.old), _hex(ref.new), str(ref.move)) for ref in pushed.refs
        ),
        bytes_sent=pushed.bytes_sent,
        packs_sent=pushed.packs_sent,
        commits=pushed.commits,
        objects=pushed.objects,
        blocks=pushed.blocks,
        blocks_held=pushed.blocks_held,
        raw_bytes=pushed.raw_bytes,
        seconds=round(seconds, 3),
        notes=pushed.notes,
    )


def _text(session: Session, result: "PushResult", seconds: float) -> str:
    from mergepipe.transfer.push_refs import Move

    pushed = result.pushed
    if not pushed.refs:
        return "Nothing to push: no branch or tag here"
    if all(ref.move is Move.UNCHANGED for ref in pushed.refs):
        there = f"Everything is there already: {escape_for_terminal(result.url)}"
        return "\n".join([there, *_notes(pushed.notes)])
    rows = [
        (_arrow(ref), escape_for_terminal(_short_name(ref.name)), str(ref.move))
        for ref in pushed.refs
        if ref.move is not Move.UNCHANGED
    ]
    lines = [f"To {escape_for_terminal(result.url)}", _indented(table(rows))]
    if pushed.packs_sent:
        rate = f"{format_size(pushed.bytes_sent / max(seconds, 1e-3))}/s"
        sent = f"Sent {session.paint('green', format_size(pushed.bytes_sent))}"
        lines.append(
            f"{sent} in {count(pushed.packs_sent, 'pack')}, {duration(seconds)}, {rate}: "
            f"{count(pushed.blocks, 'block')} and {count(pushed.commits, 'commit')} "
            f"of models of {format_size(pushed.raw_bytes)}"
        )
    return "\n".join([*lines, *_notes(pushed.notes)])


def _notes(number: int) -> list[str]:
    return [f"Sent notes of {count(number, 'commit')}"] if number else []


def _arrow(ref: "Decision") -> str:
    old = "" if ref.old is None else short(ref.old)
    new = "" if ref.new is None else short(ref.new)
    if old and new:
        return f"{old} -> {new}"
    return new or f"{old} removed"


def _short_name(name: str) -> str:
    from mergepipe.repository.refnames import TAGS, short_name

    return f"tag {short_name(name)}" if name.startswith(TAGS) else short_name(name)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _hex(identity: bytes | None) -> str | None:
    return None if identity is None else identity.hex()
