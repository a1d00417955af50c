"""`mp explain`: which expert gave what to a merge, what was read and left out, and why."""

import shlex
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.compare_text import compare
from mergepipe.cli.panels import MERGING
from mergepipe.cli.parameters import Revision
from mergepipe.cli.plan_costs import LeastServedDocument, PricedPlan, snapshot_names
from mergepipe.cli.session import Session
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.ids import ObjectId
    from mergepipe.objects.merging import Plan
    from mergepipe.plans.explain import ExpertPart, Explanation, TensorExplanation


class InputDocument(msgspec.Struct, frozen=True):
    """A model of a merge. `role`: base or expert; `rev`: a name or id that resolves to it.

    `commit` is null where no commit in this repository holds the snapshot any more. `profile` is
    named where some of its blocks were not read exactly.
    """

    role: str
    rev: str
    commit: str | None
    snapshot: str
    profile: str | None


class ExpertDocument(msgspec.Struct, frozen=True):
    """What one expert gave to one tensor. Bytes as stored, but for `bytes_raw`.

    `influence`: its share of the weighted delta energy kept, of all experts; null where some have
    no profile. `threshold`: the trim's; `depths`: one letter a block, exact, coarse, omitted or
    equal, only with --tensor.
    """

    rev: str
    blocks_exact: int
    blocks_coarse: int
    blocks_omitted: int
    blocks_equal_base: int
    energy_kept: float
    influence: float | None
    weight: float | None
    density: float | None
    threshold: float | None
    bytes_raw: int
    bytes_full: int
    bytes_planned: int
    depths: str | None = None


class TensorDocument(msgspec.Struct, frozen=True):
    """One tensor of the result. `kept`: it is the base's (or layout's) as it stands."""

    name: str
    method: str
    experts: tuple[ExpertDocument, ...]
    dtype: str
    kept: bool
    energy_kept: float
    omitted_norm: float
    expert_bytes_full: int
    expert_bytes_planned: int
    base_bytes_planned: int


class ExplainDocument(msgspec.Struct, frozen=True):
    """`mp explain --json`. `manifest` is null for a plan; tensors are in the model's order.

    The budget is what was asked for, by the commit, or for a stored plan as far as that is known.
    `least_served`: the expert of which least is kept, where not all is.
    """

    plan: str
    manifest: str | None
    inputs: tuple[InputDocument, ...]
    tensors: tuple[TensorDocument, ...]
    method: str
    seed: int
    budget: str | None = None
    budget_total: str | None = None
    max_share: str | None = None
    least_served: LeastServedDocument | None = None


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp explain merged                                who gave what, worst kept tensors first
        mp explain merged --tensor lm_head.weight        which experts made it what it is
        mp explain 3fa9c2 --all                          a plan, every tensor
        mp explain prod~1 prod                           why today's differs from yesterday's
    """
    command(app, "explain", MERGING, examples=examples)(explain)


def explain(
    session: Session,
    revision: Revision,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[MERGE]",
            help="Another merge: why it differs from the first.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option("--tensor", metavar="NAME", help="Only this tensor, in detail."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every tensor, however many.", show_default=False)
    ] = False,
) -> None:
    """Tell what a merge, or a plan that `mp plan` stored, reads of each expert and leaves out.

    REV is the commit of a merge, or the id of a plan. Of two merges: which inputs changed from the
    first to the second, which tensors moved, and whose doing it is.
    """
    if other is not None:
        if tensor is not None:
            raise UsageError("--tensor is about one merge", "mp explain REV --tensor NAME")
        compare(session, revision, other, every=every)
        return
    from mergepipe.ids import object_id
    from mergepipe.objects.encoding import encode

    with session.repository() as repository:
        explanation, plan, manifest = repository.explain(revision, tensor)
        identity = object_id(encode(plan))
        names = snapshot_names(repository, plan)
        base = None if plan.base is None else names[plan.base]
        experts = tuple(names[plan.models[place]] for place in plan.experts)
        asked = repository.merging.asked_of(revision, manifest, identity)
        priced = PricedPlan(
            id=identity, plan=plan, costs=explanation.costs, base=base, experts=experts, asked=asked
        )
        costs = priced.document(stored=True)
        document = msgspec.structs.replace(
            _document(repository, identity, plan, manifest, explanation, detailed=bool(tensor)),
            budget=costs.budget,
            budget_total=costs.budget_total,
            max_share=costs.max_share,
            least_served=costs.least_served,
        )
    if session.as_json:
        session.emit(document, "")
        return
    from mergepipe.cli import explain_text
    from mergepipe.cli.text import short

    if tensor is not None:
        session.emit(document, explain_text.tensor_text(document, session.paint))
        return
    text = explain_text.merge_text(document, costs, session.paint, every=every)
    session.emit(document, text)
    if not session.quiet:
        worst = explain_text.by_energy(document.tensors)[0].name
        ids = f"plan {short(identity)}"
        if manifest is not None:
            ids += f", manifest {short(manifest)}"
        detail = f"mp explain {shlex.quote(revision)} --tensor {shlex.quote(worst)}"
        session.say(f"{ids}; in detail: {escape_for_terminal(detail)}")


def _document(
    repository: "Repository",
    identity: "ObjectId",
    plan: "Plan",
    manifest: "ObjectId | None",
    found: "Explanation",
    *,
    detailed: bool,
) -> ExplainDocument:
    names = snapshot_names(repository, plan)
    held = repository.planning.holders(names)
    roles = [("base", plan.base, None)] if plan.base is not None else []
    cited = {one.model: one.profile for one in plan.profiles}
    merged = (("expert", plan.models[place], cited.get(place)) for place in plan.experts)
    inputs = [*roles, *merged]
    labels = [names[snapshot] for snapshot in plan.models]
    return ExplainDocument(
        plan=identity.hex(),
        manifest=None if manifest is None else manifest.hex(),
        inputs=tuple(
            InputDocument(
                role,
                names[snapshot],
                held[snapshot].commit.hex() if snapshot in held else None,
                snapshot.hex(),
                None if profile is None else profile.hex(),
            )
            for role, snapshot, profile in inputs
        ),
        tensors=tuple(_tensor(tensor, labels, detailed=detailed) for tensor in found.tensors),
        method=plan.method,
        seed=plan.seed,
    )


def _tensor(found: "TensorExplanation", labels: list[str], *, detailed: bool) -> TensorDocument:
    experts = tuple(
        _expert(
            labels[part.cost.model],
            part,
            _letters(part.depths) if detailed and part.depths else None,
        )
        for part in found.experts
    )
    known = [part.cost for part in found.experts if part.cost.energy is not None]
    energy = sum(cost.energy or 0.0 for cost in known)
    kept = sum(cost.energy_kept or 0.0 for cost in known)
    return TensorDocument(
        name=found.name,
        method=found.method,
        experts=experts,
        dtype=found.dtype,
        kept=found.kept,
        energy_kept=min(1.0, max(0.0, kept / energy)) if energy else 1.0,
        omitted_norm=found.cost.omitted_norm,
        expert_bytes_full=found.cost.bytes_full,
        expert_bytes_planned=found.cost.bytes_planned,
        base_bytes_planned=found.cost.base_bytes,
    )


def _expert(label: str, part: "ExpertPart", depths: str | None) -> ExpertDocument:
    cost, scalars = part.cost, part.scalars
    return ExpertDocument(
        rev=label,
        blocks_exact=cost.blocks_exact,
        blocks_coarse=cost.blocks_coarse,
        blocks_omitted=cost.blocks_omitted,
        blocks_equal_base=cost.blocks_equal,
        energy_kept=cost.share_kept,
        influence=part.influence,
        weight=None if scalars is None else scalars.weight,
        density=None if scalars is None else cost.density,
        threshold=None if scalars is None else scalars.threshold,
        bytes_raw=cost.bytes_raw,
        bytes_full=cost.bytes_full,
        bytes_planned=cost.bytes_planned,
        depths=depths,
    )


def _letters(depths: bytes) -> str:
    """`o`, `c`, `e` or `=` for each block."""
    return depths.translate(bytes.maketrans(bytes(range(4)), b"oce=")).decode()
