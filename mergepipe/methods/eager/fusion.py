"""Importance of changes by the divergence of their rows, its threshold, and the merge, in torch.

On a CPU divergences come from a kernel (`fused.divergence`), whose exponentials are the same on all
of them; torch's are not.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    deltas,
    rounded,
    write_added,
)
from mergepipe.methods.eager.operands import value as value_of
from mergepipe.methods.order import (
    BUCKETS,
    PLACES,
    Counts,
    bucket_counts,
    find,
    place_counts,
    value_at,
)
from mergepipe.methods.protocol import Need, Output, Scope
from mergepipe.methods.sweeps import pieces
from mergepipe.methods.terms import Unit

QUANTILES = (0.25, 0.5, 0.75)


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over whole rows; `extras` is (threshold,)."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    (d,) = deltas(unit, base, compute, device)
    small = _importance(unit, base, d, device) < rounded(unit.scalars.extras[0], torch.float32)
    write_added(base, torch.where(small, 0, d), unit, out)


def partial(need: Need, unit: Unit, known: Sequence[Counts]) -> Counts:
    """Counts of the importances: of all buckets, then of those that hold the quantiles."""
    buckets = [find(known[0], rank)[0] for rank in _ranks(known[0])] if known else []
    total = np.zeros(len(buckets) * PLACES if known else BUCKETS)
    for begin, end in pieces(unit, Scope.ROW):
        part = unit.part(begin, end)
        compute = compute_dtype(part)
        base = base_values(part, compute, "cpu")
        (d,) = deltas(part, base, compute, "cpu")
        values = _importance(part, base, d, "cpu").numpy()
        if known:
            total += np.concatenate([place_counts(values, bucket) for bucket in buckets])
        else:
            total += bucket_counts(values)
    return total


def value(need: Need, known: Sequence[Counts]) -> tuple[float, ...]:
    """The least importance that is taken over."""
    if not known[0].sum():
        return (0.0,)
    inside = np.split(known[1], len(QUANTILES))
    low, median, high = (
        value_at(known[0], places, rank)
        for places, rank in zip(inside, _ranks(known[0]), strict=True)
    )
    return (median + 1.5 * (high - low),)


def _ranks(buckets: Counts) -> list[int]:
    """The quantiles' ranks from the largest, from 1."""
    elements = int(buckets.sum())
    return [elements - int(share * (elements - 1)) for share in QUANTILES]


def _importance(unit: Unit, base: torch.Tensor, d: torch.Tensor, device: str) -> torch.Tensor:
    """|d| times its row's divergence, float32 (length,)."""
    own = unit.scalars.experts[0]
    x = value_of(unit.terms[0], own, base, unit.length, base.dtype, device)
    before, after = (one.double().view(-1, unit.row_length) for one in (base, x))
    if device == "cpu":
        from mergepipe.methods.fused.divergence import divergences

        importance = np.empty(len(before))
        divergences(after.numpy(), before.numpy(), importance)
        of_rows = torch.from_numpy(importance)
    else:
        new, old = after.log_softmax(-1), before.log_softmax(-1)
        of_rows = (new.exp() * (new - old)).sum(-1)
    sizes = d.abs().double().view(-1, unit.row_length)
    return (sizes * of_rows.clamp(min=0)[:, None]).float().view(-1)
