"""What `mp merge` tells of a merge: its JSON, its lines, and what to do next."""

from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.cli.finite_text import NonFiniteDocument, documents
from mergepipe.cli.plan_costs import PlanDocument, PricedPlan
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, listed, share, short, title
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.engine.result import MergeResult
    from mergepipe.ids import ObjectId
    from mergepipe.objects.records import Commit


class MergeDocument(PlanDocument, frozen=True, kw_only=True):
    """`mp merge --json`: the plan's, and what the merge made and really read, in bytes.

    `expert_bytes_read` and `base_bytes_read` include what planning measured. `blocks_remembered`:
    output blocks that an earlier merge made of the same inputs, for which nothing was read. `out`:
    where --out put the files. `hook`: null if there is no post-merge hook, `ran`, or why it failed.
    `output_nonfinite`: tensors of the result with values that are infinite or NaN. `unchanged`:
    with --if-changed, the branch held the result of this very plan already.
    """

    commit: str
    snapshot: str
    manifest: str
    branch: str | None
    expert_bytes_read: int
    base_bytes_read: int
    written_bytes: int
    seconds: float
    blocks_computed: int
    blocks_remembered: int
    blocks_kept: int
    out: str | None
    hook: str | None
    output_nonfinite: tuple[NonFiniteDocument, ...]
    unchanged: bool = False


def merge_document(
    costs: PlanDocument,
    made: PricedPlan,
    result: "MergeResult",
    out: Path | None,
) -> MergeDocument:
    """A merge that was made, and what was planned of it."""
    run = result.costs
    planned = {name: getattr(costs, name) for name in costs.__struct_fields__}
    # What came to light while it ran is more than the plan knew.
    planned["nonfinite"] = made.named_inputs(result.nonfinite.inputs)
    return MergeDocument(
        **planned,
        commit=result.commit.hex(),
        snapshot=result.snapshot.hex(),
        manifest=result.manifest_id.hex(),
        branch=result.branch,
        expert_bytes_read=result.expert_bytes_read + made.measured_expert_bytes,
        base_bytes_read=result.base_bytes_read + made.measured_base_bytes,
        written_bytes=result.written_bytes,
        seconds=round(result.seconds, 3),
        blocks_computed=run.blocks_computed,
        blocks_remembered=run.blocks_remembered,
        blocks_kept=run.blocks_kept,
        out=None if out is None else str(out),
        hook=result.hook,
        output_nonfinite=documents(result.nonfinite.output),
    )


def unchanged_document(
    costs: PlanDocument, commit: "ObjectId", held: "Commit", branch: str | None
) -> MergeDocument:
    """A merge that need not be made: `commit` on the branch holds its result."""
    assert held.manifest is not None
    return MergeDocument(
        **{name: getattr(costs, name) for name in costs.__struct_fields__},
        commit=commit.hex(),
        snapshot=held.snapshot.hex(),
        manifest=held.manifest.hex(),
        branch=branch,
        expert_bytes_read=0,
        base_bytes_read=0,
        written_bytes=0,
        seconds=0.0,
        blocks_computed=0,
        blocks_remembered=0,
        blocks_kept=0,
        out=None,
        hook=None,
        output_nonfinite=(),
        unchanged=True,
    )


def summary(session: Session, found: MergeDocument, result: "MergeResult", message: str) -> str:
    """What people read of a merge."""
    from mergepipe.cli.plan_text import called, least_served_text

    where = found.branch or "detached HEAD"
    at = session.paint("yellow", short(result.commit))
    if session.quiet:
        return ""
    raw = found.expert_bytes_raw
    part = f" ({share(found.expert_bytes_read / raw)} of raw)" if raw else ""
    lines = [
        "",
        f"[{session.paint('green', escape_for_terminal(where))} {at}] {title(message)}",
        f" read {format_size(found.expert_bytes_read)} of the experts{part} and "
        f"{format_size(found.base_bytes_read)} of the base, wrote "
        f"{format_size(found.written_bytes)}, {duration(found.seconds)}",
    ]
    if found.least_served is not None:
        lines.append(f" {least_served_text(found.least_served)}")
    if found.blocks_remembered:
        lines.append(
            f" {count(found.blocks_remembered, 'block')} were known from earlier merges, "
            f"{found.blocks_computed:,} computed"
        )
    if found.left_out:
        by_model: dict[str, list[str]] = {}
        for one in found.left_out:
            by_model.setdefault(one.model, []).append(one.kind.replace("_", " "))
        parts = [f"{listed(kinds)} of {called(model)}" for model, kinds in by_model.items()]
        lines.append(f" left out: {escape_for_terminal('; '.join(parts))}")
    if found.out is not None:
        lines.append(f" files are in {escape_for_terminal(found.out)}")
    return "\n".join(lines)


def next_steps(session: Session, found: MergeDocument, here: bool) -> None:
    """Say what to do with a merge; `here`: files of the branch it is on are checked out."""
    name = escape_for_terminal(found.branch or found.commit[:12])
    steps = [f"mp explain {name}"]
    if found.out is None:
        steps.append(f"mp checkout {name} --to DIR")
    session.say(f"next: {', '.join(steps)}")
    if here:
        session.say("the files here are as they were: `mp checkout HEAD` brings them up to date")
