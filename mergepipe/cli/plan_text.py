"""What people read about a plan: a line for each expert, a total, and what the budget bought."""

import re
from collections.abc import Sequence

from mergepipe.cli.finite_text import warning
from mergepipe.cli.plan_costs import ExpertDocument, LeastServedDocument, PlanDocument
from mergepipe.cli.rich_tables import Column, render
from mergepipe.cli.text import ABBREVIATED, Paint, listed, share
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

_ID = re.compile("[0-9a-f]{64}")


def called(name: str) -> str:
    """A model's name; an id is abbreviated."""
    return name[:ABBREVIATED] if _ID.fullmatch(name) else name


def number(value: float | None) -> str:
    """A few digits; empty for what is not known."""
    return "" if value is None else f"{value:.4g}"


def heading(document: PlanDocument) -> str:
    """`ties of code and math on base`."""
    names = listed([called(expert.rev) for expert in document.experts])
    base = "" if document.base is None else f" on {escape_for_terminal(called(document.base))}"
    return f"{document.method} of {names}{base}"


def plan_text(document: PlanDocument, paint: Paint) -> str:
    """The whole of it."""
    parts = [paint("bold", heading(document)), "", expert_table(document, paint), ""]
    parts += _conclusions(document)
    parts += _warnings(document, paint)
    return "\n".join(parts)


def _warnings(document: PlanDocument, paint: Paint) -> list[str]:
    """What speaks against carrying the plan out."""
    lines = [
        f"{paint('red', 'warning:')} {escape_for_terminal(one.message)}"
        for one in document.warnings
    ]
    for rev in dict.fromkeys(one.rev for one in document.nonfinite):
        values = [one for one in document.nonfinite if one.rev == rev]
        lines.append(warning(called(rev), values, paint))
    limited = document.blocks_exact != document.blocks_full
    if document.unchecked and limited:
        names = listed([called(name) for name in document.unchecked])
        lines.append(
            f"whether all values of {names} are finite is not known, and a budget does not read "
            "them all: `mp check REV` does, once"
        )
    if document.nonfinite:
        lines.append("  a merge refuses them, unless --allow-nonfinite is given")
    return lines


def expert_table(document: PlanDocument, paint: Paint) -> str:
    """A line for each expert, and the total."""
    experts = document.experts
    densities = [expert.density for expert in experts]
    trimmed = any(density != 1.0 for density in densities)
    columns = [
        Column("expert", [*(called(one.rev) for one in experts), "total"], right=False),
        Column("weight", [*(_weight(one) for one in experts), ""], spare=4),
    ]
    if trimmed:
        # "?" is what no profile tells: the threshold was measured.
        shown = ["?" if density is None else f"{density:.3g}" for density in densities]
        columns.append(Column("density", [*shown, ""], spare=5))
    columns += [
        Column(
            "raw",
            _sizes([one.bytes_raw for one in experts], document.expert_bytes_raw),
            spare=6,
        ),
        Column(
            "read",
            _sizes([one.bytes_planned for one in experts], document.expert_bytes_planned),
        ),
        Column(
            "of raw",
            [
                *(_part(one.bytes_planned, one.bytes_raw) for one in experts),
                _part(document.expert_bytes_planned, document.expert_bytes_raw),
            ],
            spare=1,
        ),
    ]
    columns += block_columns(
        [
            *(
                (one.blocks_exact, one.blocks_coarse, one.blocks_omitted, one.blocks_equal_base)
                for one in experts
            ),
            (
                document.blocks_exact,
                document.blocks_coarse,
                document.blocks_omitted,
                document.blocks_equal_base,
            ),
        ],
        spare=2,
    )
    kept = [*(share(one.energy_kept) for one in experts), share(document.energy_kept)]
    columns.append(Column("energy kept", kept))
    return render(columns, paint, total=True)


def block_columns(counts: Sequence[tuple[int, int, int, int]], *, spare: int = 0) -> list[Column]:
    """How many blocks at which depth; `equal` goes before the others if there is no room."""
    names = ("exact", "coarse", "omitted", "equal")
    return [
        Column(name, [f"{row[at]:,}" for row in counts], spare=7 if name == "equal" else spare)
        for at, name in enumerate(names)
    ]


def least_served_text(least: LeastServedDocument) -> str:
    """The headline of a budgeted merge: who comes off worst."""
    name = escape_for_terminal(called(least.rev))
    return f"least served: {name}, of whose energy {share(least.energy_kept)} is kept"


def _budget_line(document: PlanDocument) -> str:
    """How large the budget is, and how much of it was used."""
    assert document.budget_bytes is not None
    spent, whose = document.expert_bytes_planned, ""
    if document.budget_total is not None:
        spent, whose = spent + document.base_bytes_planned, " with the base"
    typed = document.budget or document.budget_total
    named = f" ({escape_for_terminal(typed)})" if typed and not typed.endswith(" B") else ""
    most = "" if document.max_share is None else f", at most {document.max_share} of it an expert's"
    used = _part(spent, document.budget_bytes)
    return f"budget {format_size(document.budget_bytes)}{named}{whose}, {used} of it planned{most}"


def _conclusions(document: PlanDocument) -> list[str]:
    planned, full = document.expert_bytes_planned, document.expert_bytes_full
    lines = []
    if document.least_served is not None:
        lines.append(least_served_text(document.least_served))
    if document.budget_bytes is not None:
        lines.append(_budget_line(document))
    if planned == full and document.blocks_exact == document.blocks_full:
        lines.append(
            f"the exact merge: {format_size(full)} of expert blocks are read, all there is"
        )
    else:
        lines.append(
            f"the exact merge reads {format_size(full)} of the experts, this "
            f"{_part(planned, full)} of that"
        )
        lines.append(
            f"the L2 norm of what is omitted or estimated is {number(document.omitted_norm)}"
        )
    if sum(expert.bytes_planned for expert in document.experts) > planned:
        lines.append(
            "blocks that several experts lean on count for each of them, in the total once"
        )
    base = f"besides, {format_size(document.base_bytes_planned)} of the base"
    lines.append(base if document.base_bytes_planned else "nothing of a base is read")
    for read, what in (
        (document.import_bytes, "to import experts"),
        (document.profile_bytes, "to make missing profiles"),
        (document.measured_expert_bytes, "of experts to measure thresholds (part of the above)"),
    ):
        if read:
            lines.append(f"planning read {format_size(read)} {what}")
    return lines


def _weight(expert: ExpertDocument) -> str:
    return "varies" if expert.weight is None else number(expert.weight)


def _sizes(sizes: Sequence[int], total: int) -> list[str]:
    return [*(format_size(size) for size in sizes), format_size(total)]


def _part(part: int, whole: int) -> str:
    return share(part / whole) if whole else ""
