"""What people read in `mp explain`: a merge by expert and by tensor, or one tensor in detail."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mergepipe.cli.plan_costs import PlanDocument
from mergepipe.cli.plan_text import (
    block_columns,
    called,
    expert_table,
    heading,
    least_served_text,
    number,
)
from mergepipe.cli.rich_tables import Column, render
from mergepipe.cli.text import Paint, count, share
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.cli.commands.explain import ExpertDocument, ExplainDocument, TensorDocument

_MOST_TENSORS = 20
_STRIP = 40
_LEGEND = "e exact, c coarse, o omitted, = equal to the base"


def by_energy(tensors: Sequence["TensorDocument"]) -> list["TensorDocument"]:
    """The tensors, those of which least was kept first, then by what they are made of."""
    return sorted(tensors, key=lambda one: (one.kept, one.energy_kept, -one.expert_bytes_full))


def merge_text(
    document: "ExplainDocument", costs: PlanDocument, paint: Paint, *, every: bool
) -> str:
    """By expert, then by tensor."""
    parts = [paint("bold", f"{heading(costs)}, seed {document.seed}"), ""]
    parts += [expert_table(costs, paint), ""]
    if costs.least_served is not None:
        parts += [least_served_text(costs.least_served)]
    if document.budget or document.budget_total:
        parts += [asked_text(document), ""]
    elif costs.least_served is not None:
        parts += [""]
    merged = [tensor for tensor in by_energy(document.tensors) if not tensor.kept]
    shown = merged if every else merged[:_MOST_TENSORS]
    if shown:
        parts += [_tensor_table(shown, paint), ""]
    if len(merged) > len(shown):
        parts.append(f"{len(merged) - len(shown):,} more, of which more was kept: --all shows them")
    kept = len(document.tensors) - len(merged)
    if kept:
        parts.append(f"{count(kept, 'tensor')} taken over as they are: no expert changes them")
    return "\n".join(parts).rstrip()


def asked_text(document: "ExplainDocument") -> str:
    """The budget that was asked for."""
    budget = document.budget or f"{document.budget_total} with the base"
    most = "" if document.max_share is None else f", at most {document.max_share} of it an expert's"
    return f"asked for with a budget of {escape_for_terminal(budget + most)}"


def _tensor_table(tensors: Sequence["TensorDocument"], paint: Paint) -> str:
    experts = [tensor.experts for tensor in tensors]
    blocks = [
        (
            sum(one.blocks_exact for one in row),
            sum(one.blocks_coarse for one in row),
            sum(one.blocks_omitted for one in row),
            sum(one.blocks_equal_base for one in row),
        )
        for row in experts
    ]
    columns = [
        Column("tensor", [tensor.name for tensor in tensors], right=False),
        Column("energy kept", [share(tensor.energy_kept) for tensor in tensors]),
        Column("read", [format_size(tensor.expert_bytes_planned) for tensor in tensors]),
        Column(
            "of full",
            [
                share(tensor.expert_bytes_planned / tensor.expert_bytes_full)
                if tensor.expert_bytes_full
                else ""
                for tensor in tensors
            ],
            spare=1,
        ),
        *block_columns(blocks, spare=2),
        Column("most influence", [_leader(row) for row in experts], right=False, spare=4),
    ]
    return render(columns, paint)


def _leader(experts: Sequence["ExpertDocument"]) -> str:
    known = [(expert.influence, expert.rev) for expert in experts if expert.influence is not None]
    if not known:
        return ""
    influence, name = max(known)
    return f"{called(name)} {share(influence)}"


def tensor_text(document: "ExplainDocument", paint: Paint) -> str:
    """Which experts made one tensor what it is, those of most influence first."""
    [tensor] = document.tensors
    name = escape_for_terminal(tensor.name)
    if tensor.kept:
        return f"{paint('bold', name)} ({tensor.dtype}) is taken over as it is"
    experts = sorted(tensor.experts, key=lambda one: -(one.influence or 0.0))
    columns = [
        Column("expert", [called(one.rev) for one in experts], right=False),
        Column("influence", [_share(one.influence) for one in experts]),
        Column("weight", [number(one.weight) for one in experts], spare=3),
    ]
    if any(one.density != 1.0 for one in experts):
        columns += [
            Column("density", [_known(one.density) for one in experts]),
            Column("threshold", [number(one.threshold) for one in experts], spare=4),
        ]
    columns += [
        Column("energy kept", [share(one.energy_kept) for one in experts]),
        Column("read", [format_size(one.bytes_planned) for one in experts]),
        Column("of raw", [_part(one.bytes_planned, one.bytes_raw) for one in experts], spare=2),
    ]
    columns += block_columns(
        [
            (one.blocks_exact, one.blocks_coarse, one.blocks_omitted, one.blocks_equal_base)
            for one in experts
        ],
        spare=1,
    )
    strips = [_strip(expert.depths or "") for expert in experts]
    columns.append(Column("depth by block", strips, right=False, spare=8))
    lines = [
        f"{paint('bold', name)}, {tensor.dtype}, made by {tensor.method}",
        "",
        render(columns, paint),
        "",
        f"{share(tensor.energy_kept)} of the change's energy is kept; the L2 norm of what is "
        f"omitted or estimated is {number(tensor.omitted_norm)}",
        "influence: an expert's share of the weighted energy that was kept",
        f"depth: {_LEGEND}",
    ]
    return "\n".join(lines)


def _strip(depths: str) -> str:
    """Depths in at most `_STRIP` letters: of neighbours that share one, what most of them are."""
    if len(depths) <= _STRIP:
        return depths
    edges = [len(depths) * place // _STRIP for place in range(_STRIP + 1)]
    groups = [depths[a:b] for a, b in pairwise(edges)]
    return "".join(max("ec=o", key=group.count) for group in groups)


def _share(part: float | None) -> str:
    return "?" if part is None else share(part)


def _known(density: float | None) -> str:
    return "?" if density is None else f"{density:.3g}"


def _part(part: int, whole: int) -> str:
    return share(part / whole) if whole else ""
