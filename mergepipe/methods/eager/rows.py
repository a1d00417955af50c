"""Weights of each row's own: nuslerp row by row, model_stock filter by filter.

Dot products of rows are folded in float64 and resolved to weights by `gram`, one row after the
other; what is then added up is the unit's own dtype.
"""

from itertools import combinations_with_replacement

import torch

from mergepipe.methods.eager.folding import fold
from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    deltas,
    models_of,
    write,
    write_added,
)
from mergepipe.methods.gram import Matrix, arc, stock_share
from mergepipe.methods.protocol import Output
from mergepipe.methods.terms import Unit


def merge_arcs(unit: Unit, out: Output, device: str) -> None:
    """Each row of the weights of two models along its own arc; `extras` is (t,)."""
    models = models_of(unit, compute_dtype(unit), device)
    write(_on_arcs(models, unit), unit.dtype, out)


def merge_delta_arcs(unit: Unit, out: Output, device: str) -> None:
    """The same of differences, added to the base."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    write_added(base, _on_arcs(deltas(unit, base, compute, device), unit), unit, out)


def merge_stock(unit: Unit, out: Output, device: str) -> None:
    """The base plus t sum w_i d_i, each row's t from the cosines between the rows."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    terms = deltas(unit, base, compute, device)
    shares = [stock_share(gram) for gram in _grams(terms, unit)]
    merged = torch.zeros_like(base)
    for d, expert in zip(terms, unit.scalars.experts, strict=True):
        merged += _times(d, [share * expert.weight for share in shares], unit)
    write_added(base, merged, unit, out)


def _on_arcs(models: list[torch.Tensor], unit: Unit) -> torch.Tensor:
    (t,) = unit.scalars.extras
    pairs = [arc(t, gram[0][0], gram[0][1], gram[1][1]) for gram in _grams(models, unit)]
    total = _times(models[0], [first for first, _ in pairs], unit)
    return total + _times(models[1], [second for _, second in pairs], unit)


def _grams(models: list[torch.Tensor], unit: Unit) -> list[Matrix]:
    """The K x K dot products of every row."""
    count = len(models)
    rows = [model.double().view(-1, unit.row_length) for model in models]
    products = torch.empty(rows[0].shape[0], count, count, dtype=torch.float64)
    for i, j in combinations_with_replacement(range(count), 2):
        products[:, i, j] = products[:, j, i] = fold(rows[i] * rows[j]).cpu()
    grams: list[Matrix] = products.tolist()
    return grams


def _times(values: torch.Tensor, weights: list[float], unit: Unit) -> torch.Tensor:
    """Every row times its weight, shape (length,)."""
    factors = torch.tensor(weights, dtype=torch.float64).to(values.dtype).to(values.device)
    return (values.view(-1, unit.row_length) * factors[:, None]).view(-1)
