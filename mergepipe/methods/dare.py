"""dare_linear, dare_ties: drop elements of each delta at random, rescale the rest. Yu et al., 2024.

Each element survives with chance `density`, by `randomness`. `rescale` multiplies the survivors by
1/density (`rescale_norm: density`, the paper's; unbiased, one pass) or gives the delta the L1 norm
it had (`rescale_norm: l1`, mergekit's; one more pass). dare_ties elects signs as ties does.
"""

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues
from mergepipe.methods.task_vectors import DENSITY, RESCALE_NORM, task_vector_method
from mergepipe.methods.terms import ExpertScalars
from mergepipe.methods.trim import l1_rescale

_PARAMETERS = (
    DENSITY,
    Parameter(name="rescale", default=True, meaning="make up for what was dropped", kind=bool),
    RESCALE_NORM,
)


def _need(settings: Settings, index: int) -> Need | None:
    density = settings.number("density", index)
    by_norm = settings.flag("rescale") and settings.choice("rescale_norm") == "l1"
    return Need(NeedKind.MASK_L1, index, density) if by_norm and 0 < density < 1 else None


def _needs(settings: Settings) -> tuple[Need, ...]:
    wanted = (_need(settings, index) for index in range(len(settings.experts)))
    return tuple(need for need in wanted if need is not None)


def _drop(index: int, settings: Settings, values: NeedValues, share: float) -> ExpertScalars:
    density = settings.number("density", index)
    need = _need(settings, index)
    rescale = 1.0
    if need is not None:
        before, after = values[need]
        rescale = l1_rescale(before, after)
    elif settings.flag("rescale") and density > 0:
        rescale = 1.0 / density
    return ExpertScalars(settings.number("weight", index), density=density, rescale=rescale)


def _dare(name: str, summary: str, *, elect: bool) -> Method:
    return task_vector_method(
        name,
        summary,
        "Yu et al., Language models are super Mario (DARE), ICML 2024",
        elect=elect,
        normalize=True,
        mergekit_normalize=False,
        sparsify=_drop,
        parameters=_PARAMETERS,
        needs=_needs,
        aliases=(name.replace("_", "-"),),
    )


DARE_LINEAR = _dare("dare_linear", "deltas thinned at random, weighted mean", elect=False)
DARE_TIES = _dare("dare_ties", "deltas thinned at random, sign election", elect=True)
