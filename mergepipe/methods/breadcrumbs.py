"""breadcrumbs: leave out the largest and the smallest of each delta. Davari and Belilovsky, 2024.

Of n elements by |d| the top int(gamma n) go and the next int(density n) stay (`trim.Band`; nothing
goes at density 1). breadcrumbs_ties elects signs as ties does. `rescale` gives each delta the L1
norm it had.
"""

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues
from mergepipe.methods.task_vectors import DENSITY, task_vector_method
from mergepipe.methods.terms import ExpertScalars
from mergepipe.methods.trim import Band, l1_rescale

_PARAMETERS = (
    DENSITY,
    Parameter(
        name="gamma",
        default=0.01,
        meaning="share of the delta to drop, of its largest",
        per_expert=True,
        lowest=0.0,
        highest=1.0,
    ),
    Parameter(name="rescale", default=False, meaning="restore each delta's L1 norm", kind=bool),
)


def _need(settings: Settings, index: int) -> Need | None:
    density, gamma = settings.number("density", index), settings.number("gamma", index)
    return Need(NeedKind.BAND, index, density, gamma) if density < 1 else None


def _needs(settings: Settings) -> tuple[Need, ...]:
    wanted = (_need(settings, index) for index in range(len(settings.experts)))
    return tuple(need for need in wanted if need is not None)


def _band(index: int, settings: Settings, values: NeedValues, share: float) -> ExpertScalars:
    weight = settings.number("weight", index)
    need = _need(settings, index)
    if need is None:
        return ExpertScalars(weight=weight)
    band = Band(*values[need])
    return ExpertScalars(
        weight=weight,
        threshold=band.threshold,
        ceiling=band.ceiling,
        coarse_scale=share,
        rescale=l1_rescale(band.l1_before, band.l1_kept) if settings.flag("rescale") else 1.0,
    )


def _breadcrumbs(name: str, summary: str, *, elect: bool) -> Method:
    return task_vector_method(
        name,
        summary,
        "Davari and Belilovsky, Model Breadcrumbs, ECCV 2024",
        elect=elect,
        normalize=False,
        sparsify=_band,
        parameters=_PARAMETERS,
        needs=_needs,
    )


BREADCRUMBS = _breadcrumbs(
    "breadcrumbs", "deltas without their largest and smallest, summed", elect=False
)
BREADCRUMBS_TIES = _breadcrumbs(
    "breadcrumbs_ties", "deltas without their largest and smallest, sign election", elect=True
)
