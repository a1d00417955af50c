"""Statistics that a plan below the exact one takes from profiles instead of measuring them.

A measuring pass reads what the merge reads, so under a budget it leaves the merge half of it. What
profiles know is nearer to the exact statistics than what coarse readings measure: the energies are
those of the exact changes, and their angles follow from the sampled signs of the coarse readings.
Measured in docs/design/merge-quality.md.
"""

from collections.abc import Sequence

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
    """Inner products of the changes, row by row."""
    changed = [
        (place, view)
        for place, (view, energy) in enumerate(zip(views, energies, strict=True))
        if view is not None and energy
    ]
    if not all(has_signs(view) for _, view in changed):
        return None
    angles = np.eye(len(views))
    known = [place for place, _ in changed]
    angles[np.ix_(known, known)] = cosines([view for _, view in changed], elements)
    products = angles * np.sqrt(np.outer(energies, energies))
    return tuple(float(product) for product in products.reshape(-1))


def has_signs(view: TensorView) -> bool:
    """Whether a profile tells the signs of a tensor's large changes."""
    return view.has_coarse and bool(view.source.signs)


def cosines(views: Sequence[TensorView], elements: int) -> npt.NDArray[np.float64]:
    """Cosines between changes of one tensor of so many elements: a row and a column each.

    A coarse reading c of a change d keeps <d, c> = |c|^2, so where d is scaled up to an unbiased
    estimate, inner products of estimates are unbiased too: the cosine of two coarse readings is too
    small by sqrt(|c|^2 / |d|^2) of each (docs/design/coarse-layer.md). views: with `has_signs`.
    """
    if not views:
        return np.zeros((0, 0))
    signs = np.stack([view.signs(elements) for view in views]).astype(np.float64)
    stretch = np.sqrt([view.coarse_scale for view in views])
    products = signs @ signs.T
    many = np.sqrt(np.outer(np.diag(products), np.diag(products)))
    shared = np.divide(products, many, out=np.zeros_like(products), where=many > 0)
    angles: npt.NDArray[np.float64] = np.clip(shared * stretch[:, None] * stretch, -1.0, 1.0)
    np.fill_diagonal(angles, 1.0)
    return angles
