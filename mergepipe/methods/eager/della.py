"""DELLA's random masks in torch: chances by rank within a row; the merge, norms under a mask."""

import numpy as np
import torch

from mergepipe.methods.eager.folding import fold
from mergepipe.methods.eager.masks import numbers
from mergepipe.methods.eager.operands import base_values, compute_dtype, delta
from mergepipe.methods.eager.task_vectors import merge_thinned
from mergepipe.methods.order import Counts
from mergepipe.methods.protocol import Need, Output, Scope
from mergepipe.methods.randomness import KEEP_ALL
from mergepipe.methods.sweeps import pieces
from mergepipe.methods.terms import SAME, Unit


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over whole rows; `extras` has two numbers per expert (`della`)."""

    def thin(index: int, d: torch.Tensor) -> torch.Tensor:
        density = unit.scalars.experts[index].density
        epsilon, by_chance = unit.scalars.extras[2 * index : 2 * index + 2]
        if density >= 1:
            return d
        if density <= 0:
            return torch.zeros_like(d)
        chance = _chances(d, density, epsilon, unit.row_length)
        kept = torch.where(_kept(unit, index, chance), d, 0)
        return (kept.double() / chance).to(d.dtype) if by_chance else kept

    merge_thinned(unit, out, device, thin)


def norms(need: Need, unit: Unit) -> Counts:
    """L1 of the expert's d, and of what its mask leaves."""
    assert need.expert is not None
    total = np.zeros(2)
    term, own = unit.terms[need.expert], unit.scalars.experts[need.expert]
    if term is SAME:
        return total
    for begin, end in pieces(unit, Scope.ROW):
        part = unit.part(begin, end)
        compute = compute_dtype(part)
        base = base_values(part, compute, "cpu")
        d = delta(part.terms[need.expert], own, base, part.length, compute, "cpu")
        chance = _chances(d, need.density, need.epsilon, part.row_length)
        left = torch.where(_kept(part, need.expert, chance), d, 0)
        total += fold(torch.stack((d, left)).abs()).numpy()
    return total


def _kept(unit: Unit, index: int, chance: torch.Tensor) -> torch.Tensor:
    return numbers(unit, index, str(chance.device)) < torch.round(chance * KEEP_ALL)


def _chances(d: torch.Tensor, density: float, epsilon: float, row_length: int) -> torch.Tensor:
    """How likely each element is to stay, float64 (length,)."""
    if row_length < 2:
        return torch.full_like(d, density, dtype=torch.float64)
    # The bits of what is not negative have its order, and give a NaN its place too.
    bits = d.abs().float().view(torch.int32).view(-1, row_length)
    rank = _ranks(bits)
    return ((density - epsilon) + 2 * epsilon * rank / (row_length - 1)).view(-1)


def _ranks(rows: torch.Tensor) -> torch.Tensor:
    """The mean rank of each value in its row, float64."""
    if rows.device.type == "cpu":
        from mergepipe.methods.fused.ranks import mean_ranks

        values = rows.numpy().view(np.uint32)
        ranks = np.empty(values.shape)
        mean_ranks(values, np.argsort(values, axis=-1), ranks)
        return torch.from_numpy(ranks)
    rising = rows.sort(-1).values
    first = torch.searchsorted(rising, rows)
    behind = torch.searchsorted(rising, rows, right=True)
    return (first + behind - 1).double() / 2
