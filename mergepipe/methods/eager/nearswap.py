"""base + d min(1, t / max(|d|, 1e-6)) in torch."""

import torch

from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    deltas,
    rounded,
    write_added,
)
from mergepipe.methods.protocol import Output
from mergepipe.methods.terms import Unit

_SMALLEST = 1e-6


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over one unit, into `out`; `extras` is (t,)."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    (d,) = deltas(unit, base, compute, device)
    t = torch.tensor(rounded(unit.scalars.extras[0], compute), dtype=compute, device=device)
    share = (t / d.abs().clamp(min=rounded(_SMALLEST, compute))).clamp(max=1.0)
    write_added(base, d * share, unit, out)
