"""When two results of one config count as equal.

float32: within what rounding at every step can do. bfloat16: within one unit in the last place, at
the size of what was added up (mergekit rounds after every step, ours once), but for elements at a
threshold: a bfloat16 tensor has many weights of one magnitude; which of them pass is arbitrary.
"""

from dataclasses import dataclass

import torch

from tests.compat.models import Tensors

_STEPS = 32  # roundings that may add up in float32
_HALF_BITS = 8  # of precision in bfloat16


@dataclass(frozen=True)
class Difference:
    """Over all tensors: the share of elements that differ by more than rounding, and the worst."""

    share: float
    worst: float
    where: str


def difference(ours: Tensors, theirs: Tensors, inputs: list[Tensors]) -> Difference:
    """How far two results are apart; in units of what rounding may do.

    inputs  whatever models went in: their sizes say what is added up
    """
    assert {n: tuple(t.shape) for n, t in ours.items()} == {
        n: tuple(t.shape) for n, t in theirs.items()
    }
    apart, elements, worst, where = 0, 0, 0.0, ""
    for name, own in ours.items():
        other = theirs[name]
        assert own.dtype == other.dtype, f"{name}: {own.dtype}, not {other.dtype}"
        unit = _unit(name, own, other, inputs)
        off = (own.double() - other.double()).abs() / unit
        apart += int((off > 1).sum())
        elements += off.numel()
        if off.numel() and float(off.max()) > worst:
            worst, where = float(off.max()), name
    return Difference(apart / max(elements, 1), worst, where)


def _unit(name: str, own: torch.Tensor, other: torch.Tensor, inputs: list[Tensors]) -> torch.Tensor:
    """What rounding may do to each element."""
    size = torch.maximum(own.double().abs(), other.double().abs())
    for tensors in inputs:
        for key, value in tensors.items():
            # Slices move layers: any input of that place and shape could be the one added up.
            if _role(key) != _role(name):
                continue
            if value.shape == own.shape:
                size = torch.maximum(size, value.double().abs())
            else:  # laid out anew: a row may be a mean over all of these
                size = torch.maximum(size, value.double().abs().amax(0))
    bits = _HALF_BITS if own.dtype == torch.bfloat16 else 24
    step = torch.exp2(torch.floor(torch.log2(size.clamp_min(1e-30))) + 1 - bits)
    return step * (1.01 if own.dtype == torch.bfloat16 else _STEPS)


def _role(name: str) -> str:
    """What a tensor is, in whichever layer."""
    return name.rpartition("layers.")[2].partition(".")[2]


@dataclass(frozen=True)
class Spread:
    """What a random mask leaves, over all weights: how it can be told from another mask's."""

    slope: float
    energy: float
    unchanged: float


def spread(merged: Tensors, base: Tensors, expected: Tensors) -> Spread:
    """Statistics of merged - base beside the merge without a mask.

    slope      of the regression on what an exact merge changes: 1 where the rescale is unbiased
    energy     of the change, as a share of the exact merge's
    unchanged  share of weights that are the base's
    """
    found = _flat(merged) - _flat(base)
    exact = _flat(expected) - _flat(base)
    return Spread(
        float(found @ exact / (exact @ exact)),
        float(found @ found / (exact @ exact)),
        float((found.abs() < 1e-7).double().mean()),
    )


def _flat(tensors: Tensors) -> torch.Tensor:
    return torch.cat([tensors[name].double().ravel() for name in sorted(tensors)])
