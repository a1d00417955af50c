"""`mp analyze`: the statistics of a pair of models, ahead of time."""

import math
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion, merge_options
from mergepipe.cli.command import command
from mergepipe.cli.panels import MERGING
from mergepipe.cli.parameters import Revision
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, share
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.objects.merging import Profile


class AnalyzeDocument(msgspec.Struct, frozen=True):
    """`mp analyze --json`. `made`: it was not known yet; `profile_bytes` were read for it.

    `tensors` differ, in `weights_changed` weights, by `l2` in all. `coarse_energy`: the share of
    that change's energy that the coarse layers capture, where there are any. `layered_blocks` were
    stored once more, so that a budget can read them coarsely.
    """

    profile: str
    snapshot: str
    base: str
    made: bool
    profile_bytes: int
    tensors: int
    weights_changed: int
    l2: float
    coarse_energy: float
    seconds: float
    layered_blocks: int


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "analyze", MERGING, examples="mp analyze code --base llama")(analyze)


def analyze(
    session: Session,
    revision: Revision,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="REV",
            help="Against which model; without it, the one that REV was trained from.",
            autocompletion=completion.revisions,
        ),
    ] = None,
    on: merge_options.On = None,
) -> None:
    """Make the profile of a model against a base, so that planning need not.

    A commit has one against the model that it was trained from. For any other pair both models
    are read once, here or when a plan first needs it. Blocks that have no coarse layer over the
    base (a model that was committed before anybody said what it was trained from) are stored once
    more, so that budgets can read them coarsely.
    """
    began = time.monotonic()
    with session.repository() as repository, repository.on(on):
        with session.progress() as progress:
            layered = repository.merging.layer(revision, base, progress)
            identity = repository.analyze(revision, base, progress)
        profile = repository.profiles().load(identity)
        read = repository.profile_bytes
    document = _document(identity.hex(), profile, read, layered, time.monotonic() - began)
    session.emit(document, "" if session.quiet else _text(session, document))


def _document(
    identity: str, profile: "Profile", read: int, layered: int, seconds: float
) -> AnalyzeDocument:
    import numpy as np

    from mergepipe.catalog.view import TensorView

    views = [TensorView(tensor) for tensor in profile.tensors]
    energy = math.fsum(float(np.nansum(view.energies)) for view in views)
    coarse = math.fsum(float(np.sum(view.estimate_energies)) for view in views if view.has_coarse)
    return AnalyzeDocument(
        profile=identity,
        snapshot=profile.snapshot.hex(),
        base=profile.base.hex(),
        made=read > 0,
        profile_bytes=read,
        tensors=len(views),
        weights_changed=sum(int(view.changed.sum()) for view in views),
        l2=math.sqrt(energy),
        coarse_energy=coarse / energy if energy else 1.0,
        seconds=round(seconds, 3),
        layered_blocks=layered,
    )


def _text(session: Session, found: AnalyzeDocument) -> str:
    how = "known already"
    if found.made:
        how = f"made from {format_size(found.profile_bytes)} in {duration(found.seconds)}"
    layers = ""
    if found.layered_blocks:
        blocks = count(found.layered_blocks, "block")
        layers = f"\n {blocks} stored once more, for budgets to read coarsely over the base"
    return (
        f"profile {session.paint('yellow', found.profile[:12])}: {how}\n"
        f" {count(found.tensors, 'tensor')} differ, in {count(found.weights_changed, 'weight')}; "
        f"L2 of the change {found.l2:.4g}, {share(found.coarse_energy)} of its energy in the "
        f"coarse layer{layers}"
    )
