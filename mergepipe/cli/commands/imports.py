"""`mp import`: a whole family of models, from a list."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import merge_options, suspect_text
from mergepipe.cli.command import command
from mergepipe.cli.finite_text import NonFiniteDocument, documents, warning
from mergepipe.cli.panels import MODEL
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, share, short
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.results import Imported


class ModelDocument(msgspec.Struct, frozen=True):
    """One model of the list. `read`: its files were read; `unchanged`: the branch held it."""

    path: str
    branch: str
    commit: str
    snapshot: str
    base: str | None
    raw_bytes: int
    stored_bytes: int
    blocks: int
    new_blocks: int
    unchanged: bool
    read: bool
    seconds: float
    nonfinite: tuple[NonFiniteDocument, ...]
    suspects: tuple[suspect_text.SuspectDocument, ...]


class ImportDocument(msgspec.Struct, frozen=True):
    """`mp import --json`. Sums of all models: `imported` of them were new."""

    models: tuple[ModelDocument, ...]
    imported: int
    raw_bytes: int
    stored_bytes: int
    seconds: float


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "import", MODEL, examples="mp import family.toml")(import_list)


def import_list(
    session: Session,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="LIST.toml",
            help="[[model]] tables with path, branch and, if you like, base and message.",
            show_default=False,
        ),
    ],
    on: merge_options.On = None,
) -> None:
    """Commit many models in one go, each onto its branch, bases before what leans on them.

    Paths are relative to the list. Run it again after an interruption: what is there already is
    not read again.
    """
    began = last = time.monotonic()
    models = []
    with session.repository() as repository, repository.on(on), session.progress() as progress:
        for made in repository.import_list(path, progress):
            progress.close()  # its bar must not stand in the line below
            now = time.monotonic()
            models.append(_model(made, now - last))
            if not (session.as_json or session.quiet):
                print(_line(session, made, now - last), flush=True)
            paint = session.paint_errors
            session.warn(warning(made.branch, models[-1].nonfinite, paint))
            session.warn(suspect_text.warning(made.branch, models[-1].suspects, paint))
            last = now
    document = ImportDocument(
        models=tuple(models),
        imported=sum(not model.unchanged for model in models),
        raw_bytes=sum(model.raw_bytes for model in models),
        stored_bytes=sum(model.stored_bytes for model in models),
        seconds=round(time.monotonic() - began, 3),
    )
    session.emit(document, "" if session.quiet else _total(document))


def _model(made: "Imported", seconds: float) -> ModelDocument:
    result = made.result
    return ModelDocument(
        path=str(made.path),
        branch=made.branch,
        commit=result.commit.hex(),
        snapshot=result.snapshot.hex(),
        base=None if result.base is None else result.base.hex(),
        raw_bytes=result.raw_bytes,
        stored_bytes=result.stored_bytes,
        blocks=result.blocks,
        new_blocks=result.new_blocks,
        unchanged=result.unchanged,
        read=made.read,
        seconds=round(seconds, 3),
        nonfinite=documents(result.nonfinite),
        suspects=suspect_text.documents(result.suspects),
    )


def _line(session: Session, made: "Imported", seconds: float) -> str:
    result = made.result
    at = session.paint("yellow", short(result.commit))
    name = f"[{session.paint('green', escape_for_terminal(made.branch))} {at}]"
    if result.unchanged:
        return f"{name} is there already{'' if made.read else ', not read again'}"
    part = f" ({share(result.stored_bytes / result.raw_bytes)})" if result.raw_bytes else ""
    return (
        f"{name} {format_size(result.raw_bytes)} as {format_size(result.stored_bytes)} "
        f"stored{part}, {duration(seconds)}"
    )


def _total(found: ImportDocument) -> str:
    there = len(found.models) - found.imported
    parts = [f"{count(found.imported, 'model')} imported"]
    if there:
        parts.append(f"{there:,} were there")
    sizes = f"{format_size(found.stored_bytes)} stored, {duration(found.seconds)}"
    return f"{', '.join(parts)}: {sizes}"
