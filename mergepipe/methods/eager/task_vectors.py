"""base + lambda * sum w_i m_i d_i / divisor in torch: task_arithmetic, ties, dare, breadcrumbs.

The reference for the fused kernel, operation by operation: it gives the same bytes on a CPU.
The election's sum is that of the positive terms plus that of the negative ones, each in the order
of the recipe, so that one sweep over the experts gives sum, numerators and divisors.
"""

from collections.abc import Callable
from math import inf
from typing import TypeAlias

import torch

from mergepipe.methods.eager.masks import keep
from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    delta,
    rounded,
    write_added,
)
from mergepipe.methods.protocol import Output
from mergepipe.methods.sums import plain_divisor
from mergepipe.methods.terms import Coarse, Same, Unit

# What a method's random mask makes of expert number `index`'s trimmed d.
Thin: TypeAlias = Callable[[int, torch.Tensor], torch.Tensor]


def weighted_deltas(
    unit: Unit, base: torch.Tensor, compute: torch.dtype, device: str, thin: Thin
) -> list[tuple[torch.Tensor, float]]:
    """(w_i rescale_i m_i d_i, w_i) of every expert that has a delta, in the recipe's order."""
    result = []
    for index, (term, expert) in enumerate(zip(unit.terms, unit.scalars.experts, strict=True)):
        if isinstance(term, Same):
            continue
        d = delta(term, expert, base, unit.length, compute, device)
        if not isinstance(term, Coarse):
            # In float32 also where d is float64: thresholds are float32 values.
            if expert.threshold > 0:
                small = d.abs().float() < rounded(expert.threshold, torch.float32)
                d = torch.where(small, 0, d)
            if expert.ceiling < inf:
                large = d.abs().float() > rounded(expert.ceiling, torch.float32)
                d = torch.where(large, 0, d)
        d = thin(index, d)
        factor = rounded(expert.weight * expert.rescale, compute)
        result.append((d * factor, rounded(expert.weight, compute)))
    return result


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over one unit, into `out`."""

    def thin(index: int, d: torch.Tensor) -> torch.Tensor:
        kept = keep(unit, index, device)
        return d if kept is None else torch.where(kept, d, 0)

    merge_thinned(unit, out, device, thin)


def merge_thinned(unit: Unit, out: Output, device: str, thin: Thin) -> None:
    """The same with masks of a method's own."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    terms = weighted_deltas(unit, base, compute, device, thin)
    if unit.scalars.elect:
        merged = _elected(terms, base, normalize=unit.scalars.normalize)
    else:
        merged = torch.zeros_like(base)
        for weighted, _ in terms:
            merged += weighted
        merged /= rounded(plain_divisor(unit.scalars), compute)
    merged *= rounded(unit.scalars.scale, compute)
    write_added(base, merged, unit, out)


def _elected(
    terms: list[tuple[torch.Tensor, float]], base: torch.Tensor, *, normalize: bool
) -> torch.Tensor:
    positive, negative = torch.zeros_like(base), torch.zeros_like(base)
    above, below = torch.zeros_like(base), torch.zeros_like(base)
    for weighted, weight in terms:
        up, down = weighted > 0, weighted < 0
        positive += torch.where(up, weighted, 0)
        negative += torch.where(down, weighted, 0)
        one = torch.tensor(weight, dtype=base.dtype, device=base.device)
        above += torch.where(up, one, 0)
        below += torch.where(down, one, 0)
    plus = positive >= -negative
    merged = torch.where(plus, positive, negative)
    if normalize:
        divisor = torch.where(plus, above, below)
        merged /= torch.where(divisor == 0, 1, divisor)
    return merged
