"""`mp du`: the room that models take."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, short, table
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.usage import Usage


class ModelDocument(msgspec.Struct, frozen=True):
    """One model. Sizes in bytes; a record is an encoded block with its header.

    `stored_bytes`: the records of its own blocks. `base_bytes`: the records of other blocks that
    these lean on. `exclusive_bytes`: of both, what no other model listed needs.
    """

    rev: str
    raw_bytes: int
    stored_bytes: int
    unique_bytes: int
    base_bytes: int
    exclusive_bytes: int
    commit: str
    base: str | None


class UsageDocument(msgspec.Struct, frozen=True):
    """`mp du --json`. `stored_bytes` = raw - saved by deduplication - saved by coding.

    `packs_bytes` is what the pack files take, with history and what no listed model needs;
    `promised_bytes` is what they lack, in a lazy clone.
    """

    raw_bytes: int
    unique_bytes: int
    stored_bytes: int
    models: tuple[ModelDocument, ...]
    dedup_saved_bytes: int
    coding_saved_bytes: int
    objects_bytes: int
    packs_bytes: int
    promised_bytes: int


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "du", UPKEEP, examples="mp du\nmp du main python~3")(du)


def du(
    session: Session,
    revisions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REV]...",
            help="Which models; every branch, tag and import if none is named.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the room that models take: as files, and in the store.

    `stored` is what its own blocks take, shared ones too; `own` what removing it would free.
    """
    with session.repository() as repository:
        usage = repository.usage(revisions or ())
    models = tuple(
        ModelDocument(
            rev=model.rev,
            raw_bytes=model.raw_bytes,
            stored_bytes=model.stored_bytes,
            unique_bytes=model.unique_bytes,
            base_bytes=model.base_bytes,
            exclusive_bytes=model.exclusive_bytes,
            commit=model.commit.hex(),
            base=None if model.base is None else model.base.hex(),
        )
        for model in usage.models
    )
    document = UsageDocument(
        raw_bytes=usage.raw_bytes,
        unique_bytes=usage.unique_bytes,
        stored_bytes=usage.stored_bytes,
        models=models,
        dedup_saved_bytes=usage.dedup_saved_bytes,
        coding_saved_bytes=usage.coding_saved_bytes,
        objects_bytes=usage.objects_bytes,
        packs_bytes=usage.packs_bytes,
        promised_bytes=usage.promised_bytes,
    )
    session.emit(document, _text(session, usage) if models else "")
    if not models:
        session.say("no models yet: `mp commit` stores one")


def _text(session: Session, usage: "Usage") -> str:
    rows = [("model", "raw", "stored", "stored/raw", "own", "base")]
    for model in usage.models:
        base = model.base_rev or (short(model.base) if model.base is not None else "")
        rows.append(
            (
                model.rev,
                format_size(model.raw_bytes),
                format_size(model.stored_bytes),
                _share(model.stored_bytes, model.raw_bytes),
                format_size(model.exclusive_bytes),
                base,
            )
        )
    total = (
        f"{count(len(usage.models), 'model')}: {format_size(usage.raw_bytes)} as files, "
        f"{format_size(usage.stored_bytes)} stored "
        f"({_share(usage.stored_bytes, usage.raw_bytes)})"
    )
    return "\n".join(
        [
            table(rows, right=(1, 2, 3, 4)),
            "",
            session.paint("bold", total),
            f"deduplication saved {format_size(usage.dedup_saved_bytes)}, "
            f"coding {format_size(usage.coding_saved_bytes)}; "
            f"history and metadata take {format_size(usage.objects_bytes)}; "
            f"all packs {format_size(usage.packs_bytes)}",
            *([_promised(usage.promised_bytes)] if usage.promised_bytes else []),
        ]
    )


def _promised(size: int) -> str:
    return f"{format_size(size)} more are with the remote, and come when they are read"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
