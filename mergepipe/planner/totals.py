"""What a plan takes from one expert, over all tensors."""

from dataclasses import dataclass

from mergepipe.planner.table import CostTable


@dataclass(frozen=True, slots=True)
class ExpertTotals:
    """One expert of a plan. Bytes as stored, but for `bytes_raw`.

    energy_kept  the share of the energy of its changes that the plan keeps; 1 where none is known
    density      the share of its weights that a trim or random mask leaves, ties included; None
                 where no profile tells
    """

    name: str
    bytes_raw: int
    bytes_full: int
    bytes_planned: int
    blocks_exact: int
    blocks_coarse: int
    blocks_omitted: int
    blocks_equal: int
    energy_kept: float
    density: float | None


def totals(costs: CostTable, model: int, name: str) -> ExpertTotals:
    """The totals of the model at a place among the plan's, which is called `name`."""
    computed = [
        cost
        for tensor in costs.tensors
        if not tensor.kept
        for cost in tensor.experts
        if cost.model == model
    ]
    own = [cost for tensor in costs.tensors for cost in tensor.experts if cost.model == model]
    known = [cost for cost in own if cost.energy is not None]
    energy = sum(cost.energy or 0.0 for cost in known)
    kept = sum(cost.energy_kept or 0.0 for cost in known)
    size = sum(cost.bytes_raw for cost in computed)
    density: float | None = 1.0
    if any(cost.density is None for cost in computed):
        density = None
    elif size:
        # Of the tensors that are computed, weighted by their size.
        density = sum((cost.density or 0.0) * cost.bytes_raw for cost in computed) / size
    return ExpertTotals(
        name=name,
        bytes_raw=sum(cost.bytes_raw for cost in own),
        bytes_full=sum(cost.bytes_full for cost in own),
        bytes_planned=sum(cost.bytes_planned for cost in own),
        blocks_exact=sum(cost.blocks_exact for cost in own),
        blocks_coarse=sum(cost.blocks_coarse for cost in own),
        blocks_omitted=sum(cost.blocks_omitted for cost in own),
        blocks_equal=sum(cost.blocks_equal for cost in own),
        energy_kept=min(1.0, max(0.0, kept / energy)) if energy else 1.0,
        density=density,
    )
