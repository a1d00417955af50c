"""SCE in torch: variances over the models, the energies of what they select, and the merge."""

from collections.abc import Iterator, Sequence
from math import inf

import numpy as np
import torch

from mergepipe.methods.eager.folding import fold
from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    deltas,
    rounded,
    write_added,
)
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


def merge(unit: Unit, out: Output, device: str) -> None:
    """The element pass over one unit, into `out`; `extras` is (threshold of the variance,)."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    terms = _selected(deltas(unit, base, compute, device), unit.scalars.extras[0])
    vote = torch.zeros_like(base)
    for d in terms:
        vote += d
    plus = vote >= 0
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for d, expert in zip(terms, unit.scalars.experts, strict=True):
        weight = rounded(expert.weight, compute)
        weighted = d * weight
        agrees = torch.where(plus, weighted > 0, weighted < 0)
        total += torch.where(agrees, weighted, 0)
        divisor += torch.where(agrees, torch.tensor(weight, dtype=compute, device=device), 0)
    merged = total / torch.where(divisor == 0, 1, divisor)
    write_added(base, merged, unit, out)


def partial(need: Need, unit: Unit, known: Sequence[Counts]) -> Counts:
    """Counts of the variances in two passes, if some are to go; last sums of d^2, and elements."""
    if need.density >= 1 or len(known) == 2:
        return _energies(unit, _threshold(need, known))
    if not known:
        counts = (bucket_counts(_variances(terms).numpy()) for terms in _pieces(unit))
        return sum(counts, np.zeros(BUCKETS))
    bucket, _ = find(known[0], _rank(need, known[0]))
    counts = (place_counts(_variances(terms).numpy(), bucket) for terms in _pieces(unit))
    return sum(counts, np.zeros(PLACES))


def value(need: Need, known: Sequence[Counts]) -> tuple[float, ...]:
    """The threshold of the variance, then each model's mean d^2 over the tensor."""
    *sums, elements = known[-1]
    return (_threshold(need, known), *(float(one) / max(float(elements), 1.0) for one in sums))


def _pieces(unit: Unit) -> Iterator[list[torch.Tensor]]:
    """The deltas of the unit, piece by piece."""
    for begin, end in pieces(unit, Scope.ELEMENT):
        part = unit.part(begin, end)
        compute = compute_dtype(part)
        yield deltas(part, base_values(part, compute, "cpu"), compute, "cpu")


def _energies(unit: Unit, threshold: float) -> Counts:
    total = np.zeros(len(unit.terms))
    for terms in _pieces(unit):
        chosen = torch.stack(_selected(terms, threshold)).double()
        total += fold(chosen * chosen).numpy()
    return np.append(total, float(unit.length))


def _threshold(need: Need, known: Sequence[Counts]) -> float:
    if need.density >= 1:
        return 0.0
    rank = _rank(need, known[0])
    return value_at(known[0], known[1], rank) if rank > 0 else inf


def _rank(need: Need, buckets: Counts) -> int:
    """How many elements stay: a share of those whose variance is not 0 (the zeros are bucket 0)."""
    return int(need.density * int(buckets.sum() - buckets[0]))


def _variances(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """The variance over the models in float64, rounded to float32.

    Exactly 0 for equal ones, and where float32 has subnormal numbers only.
    """
    wide = [d.double() for d in terms]
    mean = torch.zeros_like(wide[0])
    for d in wide:
        mean += d
    mean /= len(wide)
    total = torch.zeros_like(mean)
    for d in wide:
        total += (d - mean) ** 2
    variances = (total / len(wide)).float()
    return torch.where(variances < torch.finfo(torch.float32).tiny, 0, variances)


def _selected(terms: Sequence[torch.Tensor], threshold: float) -> list[torch.Tensor]:
    """The deltas, 0 where the variance is below the threshold."""
    if threshold <= 0:
        return list(terms)
    small = _variances(terms) < rounded(threshold, torch.float32)
    return [torch.where(small, 0, d) for d in terms]
