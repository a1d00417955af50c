"""linear: the weighted mean of the weights themselves. "Model soups", Wortsman et al., ICML 2022.

    y = sum w_i x_i / sum w_i     (without the division unless `normalize`)

An expert that is omitted counts as the base: it keeps its weight and leans the result to the base.
"""

from collections.abc import Sequence

from mergepipe.errors import MergeInputError
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, NeedValues, Scope
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.methods.terms import ExpertScalars, Scalars

WEIGHT = Parameter(
    name="weight",
    default=1.0,
    meaning="how much of the model goes in",
    per_expert=True,
    mergekit_requires=True,
)
SMALLEST_WEIGHT_SUM = 1e-8


def _check(settings: Settings) -> None:
    if not settings.experts or not settings.flag("normalize"):
        return
    total = sum(settings.number("weight", index) for index in range(len(settings.experts)))
    if abs(total) < SMALLEST_WEIGHT_SUM:
        raise MergeInputError(
            f"method linear: the weights sum to {total:g}, which cannot be divided by",
            "change a weight or set normalize to false",
        )


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    experts = range(len(settings.experts))
    return Scalars(
        tuple(ExpertScalars(weight=settings.number("weight", index)) for index in experts),
        normalize=settings.flag("normalize"),
    )


LINEAR = Method(
    name="linear",
    summary="weighted mean of the models",
    source="Wortsman et al., Model soups, ICML 2022",
    scope=Scope.ELEMENT,
    needs_base=False,
    omitted_is_noop=False,
    parameters=(
        WEIGHT,
        Parameter(
            name="normalize", default=True, meaning="divide by the sum of the weights", kind=bool
        ),
    ),
    sweep=WEIGHTED_SUM,
    resolve_with=_resolve,
    check=_check,
    aliases=("average", "model_soup"),
    base_is_term=True,
)
