"""A method's numbers for one tensor: parameters, then statistics, then plain scalars."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from mergepipe.catalog.view import TensorView
from mergepipe.methods import statistics
from mergepipe.methods.parameters import Settings
from mergepipe.methods.protocol import Method, Need
from mergepipe.methods.terms import Scalars
from mergepipe.planner.elections import ELECTED, shortening
from mergepipe.planner.gains import share_above_trim
from mergepipe.plans.profile_views import counted

_NONE = np.zeros(0, np.float32)


def known_needs(
    needs: Sequence[Need],
    views: Sequence[TensorView | None],
    unchanged: Sequence[bool],
    elements: int,
) -> dict[Need, Sequence[float]]:
    """The needs that profiles answer, at no read.

    unchanged  per expert: no block of it differs from the base's
    """
    values: dict[Need, Sequence[float]] = {}
    for need in needs:
        if need.expert is None or need.kind not in statistics.COUNTED:
            continue
        view = views[need.expert]
        value: Sequence[float] | None = None
        if unchanged[need.expert]:
            value = statistics.from_counts(need, _NONE, _NONE, elements)
        elif view is not None:
            value = counted(view, need, elements)
        if value is not None:
            values[need] = value
    return values


def supposed(
    needs: Sequence[Need], known: Mapping[Need, Sequence[float]], experts: int
) -> dict[Need, Sequence[float]]:
    """Values also for needs that are not measured yet, good enough to choose depths by."""
    guessed = {need: statistics.supposed(need, experts) for need in needs}
    return {**guessed, **known}


def resolve(
    method: Method,
    settings: Settings,
    values: Mapping[Need, Sequence[float]],
    views: Sequence[TensorView | None],
    coarse: Sequence[bool],
) -> Scalars:
    """The scalars of one tensor.

    coarse  per expert: whether any block of it is read coarsely. Where none is, its scale is 1, so
            that an exact plan does not depend on profiles

    A coarse reading is scaled by the share that a trim leaves of it; and to the energy of the
    change (docs/design/coarse-layer.md), unless signs are elected: then by what elections.py says.
    """
    plain = method.resolve(settings, values)
    shares = [
        share_above_trim(view, own) if view is not None and used else 1.0
        for view, own, used in zip(views, plain.experts, coarse, strict=True)
    ]
    scalars = method.resolve(settings, values, shares)
    elected = shortening(views, scalars, coarse) if scalars.elect and any(coarse) else 1.0
    experts = []
    for expert, view, used in zip(scalars.experts, views, coarse, strict=True):
        scale = expert.coarse_scale if used else 1.0
        if used and view is not None and scalars.elect:
            scale = min(scale, ELECTED) * elected
        elif used and view is not None:
            scale *= view.coarse_scale
        experts.append(replace(expert, coarse_scale=scale))
    return replace(scalars, experts=tuple(experts))


def passes_of(needs: Sequence[Need], experts: int) -> list[int]:
    """Per expert, the passes that measuring these needs takes over its blocks."""
    passes = [0] * experts
    for need in needs:
        for row in range(experts) if need.expert is None else (need.expert,):
            passes[row] = max(passes[row], statistics.of(need).passes)
    return passes
