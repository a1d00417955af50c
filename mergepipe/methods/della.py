"""della, della_linear: drop elements at random, the small ones sooner. Deep et al., 2024.

"DELLA-Merging" (arXiv 2406.11617). An element stays with chance density - epsilon + 2 epsilon
rank / (m - 1), its rank by |d| within its row of m elements, from the smallest (0). Equal ones
share their mean rank; an element alone in its row stays with chance density. `rescale` divides the
survivors by their chance (`rescale_norm: density`, the paper's; unbiased, no pass) or gives the
delta the L1 norm it had (`rescale_norm: l1`, mergekit's; one more pass). della elects signs as ties
does.
"""

from collections.abc import Iterator

from mergepipe.errors import MergeInputError
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import DELLA as SWEEP
from mergepipe.methods.task_vectors import DENSITY, RESCALE_NORM, task_vector_method
from mergepipe.methods.terms import ExpertScalars
from mergepipe.methods.trim import l1_rescale

_PARAMETERS = (
    DENSITY,
    Parameter(
        name="epsilon", default=0.15, meaning="how far chances go from the density", per_expert=True
    ),
    Parameter(name="rescale", default=True, meaning="make up for what was dropped", kind=bool),
    RESCALE_NORM,
)


def _check(settings: Settings) -> None:
    for index in range(len(settings.experts)):
        density = settings.number("density", index)
        reach = abs(settings.number("epsilon", index))
        if 0 < density < 1 and not (density - reach > 0 and density + reach < 1):
            raise MergeInputError(
                f"method della, expert {index + 1}: epsilon is {reach:g} at density {density:g}",
                "density - epsilon and density + epsilon must lie between 0 and 1",
            )


def _by_norm(settings: Settings) -> bool:
    return settings.flag("rescale") and settings.choice("rescale_norm") == "l1"


def _need(settings: Settings, index: int) -> Need | None:
    density = settings.number("density", index)
    if not _by_norm(settings) or not 0 < density < 1:
        return None
    return Need(NeedKind.RANK_L1, index, density, epsilon=settings.number("epsilon", index))


def _needs(settings: Settings) -> tuple[Need, ...]:
    wanted = (_need(settings, index) for index in range(len(settings.experts)))
    return tuple(need for need in wanted if need is not None)


def _drop(index: int, settings: Settings, values: NeedValues, share: float) -> ExpertScalars:
    need = _need(settings, index)
    return ExpertScalars(
        settings.number("weight", index),
        density=settings.number("density", index),
        rescale=1.0 if need is None else l1_rescale(*values[need]),
    )


def _extras(settings: Settings) -> tuple[float, ...]:
    """Per expert its epsilon, and 1 if its survivors are divided by their chance."""
    by_chance = float(settings.flag("rescale") and not _by_norm(settings))

    def numbers() -> Iterator[float]:
        for index in range(len(settings.experts)):
            yield settings.number("epsilon", index)
            yield by_chance

    return tuple(numbers())


def _della(name: str, summary: str, *, elect: bool) -> Method:
    return task_vector_method(
        name,
        summary,
        "Deep et al., DELLA-Merging, arXiv 2406.11617",
        elect=elect,
        normalize=elect,
        sparsify=_drop,
        parameters=_PARAMETERS,
        needs=_needs,
        check=_check,
        scope=Scope.ROW,
        sweep=SWEEP,
        extras=_extras,
    )


DELLA = _della("della", "deltas thinned at random by rank, sign election", elect=True)
DELLA_LINEAR = _della("della_linear", "deltas thinned at random by rank, summed", elect=False)
