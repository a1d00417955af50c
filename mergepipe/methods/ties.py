"""ties: trim by magnitude, elect a sign per element, mean of what agrees. Yadav et al., 2023.

Trim keeps |d_i| >= the k-th largest of the tensor, k = max(1, int(density n)). The elected sign is
that of sum w_i d_i over what is left (a sum of 0 counts as +); exact zeros never agree. `rescale`
gives each trimmed delta the L1 norm it had before.
"""

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Need, NeedKind, NeedValues
from mergepipe.methods.task_vectors import DENSITY, task_vector_method
from mergepipe.methods.terms import ExpertScalars
from mergepipe.methods.trim import Trim, l1_rescale


def _need(settings: Settings, index: int) -> Need | None:
    density = settings.number("density", index)
    return Need(NeedKind.TRIM, index, density) if density < 1 else None


def _needs(settings: Settings) -> tuple[Need, ...]:
    wanted = (_need(settings, index) for index in range(len(settings.experts)))
    return tuple(need for need in wanted if need is not None)


def _trim(index: int, settings: Settings, values: NeedValues, share: float) -> ExpertScalars:
    weight = settings.number("weight", index)
    need = _need(settings, index)
    if need is None:
        return ExpertScalars(weight=weight)
    trim = Trim(*values[need])
    return ExpertScalars(
        weight=weight,
        threshold=trim.threshold,
        coarse_scale=share,
        rescale=l1_rescale(trim.l1_before, trim.l1_kept) if settings.flag("rescale") else 1.0,
    )


TIES = task_vector_method(
    "ties",
    "trim, elect sign, mean of the deltas that agree",
    "Yadav et al., TIES-Merging, NeurIPS 2023",
    elect=True,
    normalize=True,
    sparsify=_trim,
    parameters=(
        DENSITY,
        Parameter(
            name="rescale",
            default=False,
            meaning="restore each delta's L1 norm after the trim",
            kind=bool,
        ),
    ),
    needs=_needs,
    aliases=("ties_merging", "ties-merging"),
)
