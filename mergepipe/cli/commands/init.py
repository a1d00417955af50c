"""`mp init`: make a repository."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import START
from mergepipe.cli.session import Session
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size, parse_size


class InitDocument(msgspec.Struct, frozen=True):
    """`mp init --json`. `block_size` is in bytes."""

    directory: str
    block_size: int


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app,
        "init",
        START,
        examples="mp init\nmp init models --block-size 256KiB\nmp init /srv/models --shared",
    )(init)


def init(
    session: Session,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where; made if it is not there.")
    ] = Path(),
    template: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Config, hooks and recipes to start from."),
    ] = None,
    block_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Largest block tensors are cut into. Choose once. [default: 1MiB]"
        ),
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(
            "--shared",
            metavar="[=GROUP]",
            help="All of a unix group may write there: that of DIR, or the one named.",
        ),
    ] = None,
    packs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Packs go there, to another disk say; new or empty."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="So does the index, to a fast disk of this machine."),
    ] = None,
) -> None:
    """Make a model repository in a directory.

    The directory's files, usually a Hugging Face checkpoint, become the model at hand: `mp commit`
    stores them. Models that lie elsewhere can be committed by their paths.
    """
    from mergepipe.api import Repository

    size = None if block_size is None else parse_size(block_size)
    with Repository.init(
        directory, template=template, block_size=size, shared=shared, packs=packs, index=index
    ) as repository:
        at = repository.directory
        cut = repository.config.store.block_size
    session.emit(
        InitDocument(str(at), cut),
        ""
        if session.quiet
        else f"Made an empty model repository in {escape_for_terminal(str(at))}",
    )
    session.note(f"tensors are cut into blocks of up to {format_size(cut)}")
    session.say("next: put a model there and `mp commit`, or `mp commit PATH` for one elsewhere")
