"""`mp commit`: store a model and name it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion, merge_options, suspect_text
from mergepipe.cli.command import command
from mergepipe.cli.finite_text import NonFiniteDocument, documents, warning
from mergepipe.cli.hub import check_no_hub_name, hub_url, quiet_hub
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, short, title
from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.checkpoints.requests import CommitResult

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class CommitDocument(msgspec.Struct, frozen=True):
    """`mp commit --json`. Sizes in bytes; `stored_bytes` is what this commit added to the store.

    `nonfinite`: tensors with values that are infinite or NaN; `suspects`: those that look wrong
    beside what the model was trained from, or the version before.
    """

    commit: str
    snapshot: str
    branch: str | None
    base: str | None
    raw_bytes: int
    stored_bytes: int
    blocks: int
    new_blocks: int
    unchanged: bool
    seconds: float
    trained_from: str | None
    nonfinite: tuple[NonFiniteDocument, ...]
    suspects: tuple[suspect_text.SuspectDocument, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp commit -m "First try"                        the files beside .mergepipe
        mp commit ../llama-code -b code --base llama    another model, onto a branch of its own
        mp commit config.json tokenizer.json            these files, and no others
        mp commit hf://org/llama-code -b code           one of the Hugging Face hub
    """
    command(app, "commit", MODEL, examples=examples)(commit)


def commit(
    session: Session,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...",
            help="A directory or file instead of the worktree, several, or hf://org/name[@rev].",
        ),
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="MSG", help="What this is.")
    ] = "",
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch",
            "-b",
            metavar="BRANCH",
            help="Onto this branch, made if it is not there, instead of the current one.",
            autocompletion=completion.branches,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="The model that this one was trained from.",
            autocompletion=completion.revisions,
        ),
    ] = None,
    amend: Annotated[
        bool,
        typer.Option(
            "--amend", help="Give the last commit another message (-m).", show_default=False
        ),
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip the pre-commit hook.", show_default=False)
    ] = False,
    on: merge_options.On = None,
) -> None:
    """Store the model at hand, or the one at PATH, on a branch.

    Only blocks that the store does not have are stored. Content that is there already makes no new
    commit, and is no error.
    """
    if amend:
        _amend(session, message, others=bool(paths or branch or base))
        return
    with session.repository() as repository, repository.on(on):
        began = time.monotonic()
        given: list[str | Path] = [*(paths or ())]
        path = paths[0] if paths and len(paths) == 1 else None
        url = hub_url(path)
        check_no_hub_name(path)
        if url is not None:
            from mergepipe.api import hub

            model = hub.model_at(url, quiet=quiet_hub(session))
            path, message = model.path, message or model.title
            given = [path]
        with session.progress() as progress:
            result = repository.commit(
                given or None,
                message=message,
                branch=branch,
                base=base,
                verify=not no_verify,
                progress=progress,
            )
        seconds = time.monotonic() - began
        remark = "" if result.unchanged else _remark(repository, result)
    document = CommitDocument(
        commit=result.commit.hex(),
        snapshot=result.snapshot.hex(),
        branch=result.branch,
        base=None if result.base is None else result.base.hex(),
        raw_bytes=result.raw_bytes,
        stored_bytes=result.stored_bytes,
        blocks=result.blocks,
        new_blocks=result.new_blocks,
        unchanged=result.unchanged,
        seconds=round(seconds, 3),
        trained_from=None if result.trained_from is None else result.trained_from.hex(),
        nonfinite=documents(result.nonfinite),
        suspects=suspect_text.documents(result.suspects),
    )
    session.emit(document, "" if session.quiet else _summary(session, result, message, seconds))
    if remark:
        session.say(remark)
    session.warn(warning("the model", document.nonfinite, session.paint_errors))
    session.warn(suspect_text.warning("the model", document.suspects, session.paint_errors))
    session.note(
        f"snapshot     {document.snapshot}\ntrained from {document.trained_from or 'not said'}\n"
        f"leans on     {document.base or 'nothing'}"
    )


def _remark(repository: "Repository", made: "CommitResult") -> str:
    """What is unusual about files that are stored as any other, but merge otherwise, or not."""
    from mergepipe.objects.records import Safetensors

    files = repository.objects.snapshot(made.snapshot).files
    if any(isinstance(file.content, Safetensors) and file.content.tensors for file in files):
        return ""
    pickles = [file.path for file in files if file.path.endswith(_PICKLES)]
    if pickles:
        return (
            f"note: {quoted(pickles[0])} holds its weights as a pickle: stored as it is, and "
            "merged from a copy; a fine-tune in safetensors would be stored as what it changes"
        )
    return (
        "note: no file here holds tensors (*.safetensors): they are kept, and there is nothing "
        "to merge"
    )


def _amend(session: Session, message: str, *, others: bool) -> None:
    """A new message for the last commit: nothing is stored again."""
    if others or not message:
        raise UsageError(
            "--amend changes the message of the last commit: give -m MSG and nothing else",
            "for another model: mp reset HEAD~1, then mp commit",
        )
    with session.repository() as repository:
        identity = repository.revising.amend(message)
        commit = repository.objects.commit(identity)
        branch = repository.refs.head().short_branch
    document = CommitDocument(
        commit=identity.hex(),
        snapshot=commit.snapshot.hex(),
        branch=branch,
        base=None if commit.leans_on is None else commit.leans_on.hex(),
        raw_bytes=0,
        stored_bytes=0,
        blocks=0,
        new_blocks=0,
        unchanged=False,
        seconds=0.0,
        nonfinite=(),
        suspects=(),
        trained_from=None if commit.trained_from is None else commit.trained_from.hex(),
    )
    at = session.paint("yellow", short(identity))
    text = f"[{session.paint('green', branch or 'detached HEAD')} {at}] {title(message)}"
    session.emit(document, "" if session.quiet else text)


def _summary(session: Session, made: "CommitResult", message: str, seconds: float) -> str:
    where = made.branch or "detached HEAD"
    at = session.paint("yellow", short(made.commit))
    if made.unchanged:
        healed = count(made.new_blocks, "damaged or missing block")
        whole = f"; {healed} stored again" if made.new_blocks else ""
        return f"Nothing changed: {where} is at {at} and holds exactly this{whole}"
    ratio = f" ({made.stored_bytes / made.raw_bytes:.1%})" if made.raw_bytes else ""
    return (
        f"[{session.paint('green', where)} {at}] {title(message)}\n"
        f" {format_size(made.raw_bytes)} as {format_size(made.stored_bytes)} stored{ratio}, "
        f"{made.new_blocks:,} of {count(made.blocks, 'block')} new, {duration(seconds)}"
    )
