"""Statistics that a plan below the exact one takes from profiles instead of measuring them.

A measuring pass reads what the merge reads, so under a budget it leaves the merge half of it. What
profiles know is nearer to the exact statistics than what coarse readings measure: the energies are
those of the exact changes, and their angles follow from the sampled signs of the coarse readings.
Measured in docs/design/merge-quality.md.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from mergepipe.catalog.view import TensorView
from mergepipe.methods.protocol import Need, NeedKind


def estimated(
    need: Need, views: Sequence[TensorView | None], unchanged: Sequence[bool], elements: int
) -> tuple[float, ...] | None:
    """The value of a need over all inputs; None where profiles do not tell it.

    views      per input, its profile against the base
    unchanged  per input: no block of it differs from the base's
    elements   of the tensor
    """
    energies: list[float] = []
    for view, same in zip(views, unchanged, strict=True):
        if same:
            energies.append(0.0)
        elif view is None or np.isnan(view.energies).any():
            return None
        else:
            energies.append(float(view.energies.sum()))
    if need.kind is NeedKind.SPREAD and need.density >= 1:
        return (0.0, *(energy / max(elements, 1) for energy in energies))
    if need.kind is NeedKind.DELTA_GRAM:
        return _gram(views, energies, elements)
    return None


def _gram(
    views: Sequence[TensorView | None], energies: Sequence[float], elements: int
) -> tuple[float, ...] | None:
    """Inner products of the changes, row by row.

    A coarse reading c of a change d keeps <d, c> = |c|^2, so where d is scaled up to an unbiased
    estimate, inner products of estimates are unbiased too: the cosine of two coarse readings is too
    small by sqrt(|c|^2 / |d|^2) of each (docs/design/coarse-layer.md).
    """
    signs: list[npt.NDArray[np.int64] | None] = []
    stretch: list[float] = []
    for view, energy in zip(views, energies, strict=True):
        if view is None or not energy:
            signs.append(None)
            stretch.append(0.0)
        elif not view.has_coarse or not view.source.signs:
            return None
        else:
            signs.append(view.signs(elements).astype(np.int64))
            stretch.append(sqrt(view.coarse_scale))
    products = []
    for i, mine in enumerate(signs):
        for j, theirs in enumerate(signs):
            cosine = 1.0 if i == j else 0.0
            if i != j and mine is not None and theirs is not None:
                many = sqrt(int((mine * mine).sum()) * int((theirs * theirs).sum()))
                shared = int((mine * theirs).sum()) / many if many else 0.0
                cosine = min(1.0, max(-1.0, shared * stretch[i] * stretch[j]))
            products.append(cosine * sqrt(energies[i] * energies[j]))
    return tuple(products)
