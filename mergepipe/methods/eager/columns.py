"""Weights of each column's own: nuslerp column by column, and the dot products of columns.

Columns are elements a whole number of slabs apart (`Unit.slab_length`): a range may begin and end
anywhere.
"""

import numpy as np
import torch

from mergepipe.errors import MergeInputError
from mergepipe.methods.eager.operands import (
    base_values,
    compute_dtype,
    delta,
    deltas,
    models_of,
    value,
    write,
    write_added,
)
from mergepipe.methods.order import Counts
from mergepipe.methods.protocol import Output
from mergepipe.methods.terms import Unit

# Elements at a time: bounds the float64 copies of what is multiplied.
_PIECE = 1 << 18


def merge_arcs(unit: Unit, out: Output, device: str) -> None:
    """Each element of two models times its column's weights (`extras`: a's, then b's)."""
    models = models_of(unit, compute_dtype(unit), device)
    write(_weighted(models, unit), unit.dtype, out)


def merge_delta_arcs(unit: Unit, out: Output, device: str) -> None:
    """The same of differences, added to the base."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, device)
    models = deltas(unit, base, compute, device)
    write_added(base, _weighted(models, unit), unit, out)


def _weighted(models: list[torch.Tensor], unit: Unit) -> torch.Tensor:
    first, second = models
    count = len(unit.scalars.extras) // 2
    weights = torch.tensor(unit.scalars.extras, dtype=torch.float64).to(first.dtype)
    weights = weights.view(2, count).to(first.device)
    places = torch.arange(unit.start, unit.start + unit.length, device=first.device) % count
    return first * weights[0][places] + second * weights[1][places]


def dot_products(unit: Unit, *, of_deltas: bool) -> Counts:
    """Per column of the two models a and b: all a.a, all a.b, all b.b, shape (3 columns,)."""
    columns = unit.slab_length
    if columns <= 0:
        raise MergeInputError("column statistics of a tensor whose columns are not known")
    total = np.zeros((3, columns))
    step = max(columns, _PIECE // columns * columns)
    # Pieces begin with a column's first element, but for the first.
    begin = 0
    while begin < unit.length:
        end = min(unit.length, begin + step - (unit.start + begin) % columns)
        _add_products(unit.part(begin, end), total, of_deltas=of_deltas)
        begin = end
    return total.reshape(-1)


def _add_products(unit: Unit, total: Counts, *, of_deltas: bool) -> None:
    columns = total.shape[1]
    compute = compute_dtype(unit)
    base = base_values(unit, compute, "cpu") if unit.base is not None else None
    read = delta if of_deltas else value
    skip = unit.start % columns
    slabs = -(-(skip + unit.length) // columns)
    a, b = (np.zeros(slabs * columns) for _ in range(2))
    for target, term, expert in zip((a, b), unit.terms, unit.scalars.experts, strict=True):
        values = read(term, expert, base, unit.length, compute, "cpu").numpy()
        target[skip : skip + unit.length] = values
    for row, (left, right) in enumerate(((a, a), (a, b), (b, b))):
        total[row] += _folded((left * right).reshape(slabs, columns))


def _folded(slabs: Counts) -> Counts:
    """The sum of all rows, halves added to each other: the order is the same on every CPU."""
    count = len(slabs)
    while count > 1:
        half = (count + 1) // 2
        slabs[: count - half] += slabs[half:count]
        count = half
    total: Counts = slabs[0]
    return total
