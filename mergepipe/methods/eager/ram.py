"""The mean of the deltas that are active at an element, or the only one, in torch; their counts."""

import numpy as np
import torch

from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    deltas,
    rounded,
    write_added,
)
from mergepipe.methods.order import Counts
from mergepipe.methods.protocol import Output, Scope
from mergepipe.methods.sweeps import pieces
from mergepipe.methods.terms import Unit


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over one unit, into `out`; `extras` is (epsilon,)."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    terms = deltas(unit, base, compute, device)
    sole, total = torch.zeros_like(base), torch.zeros_like(base)
    count = torch.zeros(unit.length, dtype=torch.int32, device=device)
    for d, expert in zip(terms, unit.scalars.experts, strict=True):
        active = _active(d, unit.scalars.extras[0], compute)
        kept = torch.where(active, d, 0)
        total += kept
        sole += kept * rounded(expert.rescale, compute)
        count += active
    merged = torch.where(count == 1, sole, total / count.clamp(min=1).to(compute))
    write_added(base, merged, unit, out)


def sharing(unit: Unit, epsilon: float) -> Counts:
    """Of each model in turn: elements where it alone is active, and where others are too."""
    total = np.zeros(2 * len(unit.terms))
    for begin, end in pieces(unit, Scope.ELEMENT):
        part = unit.part(begin, end)
        compute = compute_dtype(part)
        terms = deltas(part, base_values(part, compute, "cpu"), compute, "cpu")
        active = torch.stack([_active(d, epsilon, compute) for d in terms])
        alone = active.sum(0) == 1
        total[::2] += (active & alone).sum(1).numpy()
        total[1::2] += (active & ~alone).sum(1).numpy()
    return total


def _active(d: torch.Tensor, epsilon: float, compute: torch.dtype) -> torch.Tensor:
    return d.abs() > rounded(epsilon, compute)
