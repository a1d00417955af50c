"""sum w_i x_i, divided by sum w_i where normalised: linear, slerp, passthrough in torch."""

import torch

from mergepipe.methods.eager.operands import base_values, compute_dtype, rounded, value, write
from mergepipe.methods.protocol import Output
from mergepipe.methods.sums import weight_sum
from mergepipe.methods.terms import Unit


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over one unit, into `out`."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device) if unit.base is not None else None
    total = torch.zeros(unit.length, dtype=compute, device=device)
    for term, expert in zip(unit.terms, unit.scalars.experts, strict=True):
        x = value(term, expert, base, unit.length, compute, device)
        total += x * rounded(expert.weight, compute)
    if (divisor := weight_sum(unit.scalars)) != 1:
        total /= rounded(divisor, compute)
    write(total, unit.dtype, out)
