"""multislerp: along the weighted mean direction of several models, at their weighted mean length.

    m = sum w_i x_i / (|x_i| + eps),   y = sum w_i |x_i| m / |m|

with norms over the whole tensors, and w_i divided by their sum if `normalize_weights`; sum w_i x_i
where |m| < eps. This is what mergekit 0.1.5 computes: it maps the models to the tangent at m, where
their weighted mean is 0, and back. Of differences (`multislerp_deltas`) y is added to the base. One
model alone is taken as it is.
"""

from collections.abc import Sequence

from mergepipe.errors import MergeInputError
from mergepipe.methods.gram import direction_mean, matrix
from mergepipe.methods.linear import SMALLEST_WEIGHT_SUM, WEIGHT
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import TASK_VECTORS, WEIGHTED_SUM
from mergepipe.methods.terms import ExpertScalars, Scalars

_PARAMETERS = (
    WEIGHT,
    Parameter(
        name="normalize_weights", default=True, meaning="divide the weights by their sum", kind=bool
    ),
    Parameter(name="eps", default=1e-8, meaning="lengths below this count as nothing", lowest=0.0),
)


def _weights(settings: Settings) -> list[float]:
    weights = [settings.number("weight", index) for index in range(len(settings.experts))]
    total = sum(weights) if settings.flag("normalize_weights") else 1.0
    return [weight / total for weight in weights]


def _check(settings: Settings) -> None:
    if len(settings.experts) < 2 or not settings.flag("normalize_weights"):
        return
    total = sum(settings.number("weight", index) for index in range(len(settings.experts)))
    if abs(total) < SMALLEST_WEIGHT_SUM:
        raise MergeInputError(
            f"method multislerp: the weights sum to {total:g}, which cannot be divided by",
            "change a weight or set normalize_weights to false",
        )


def _multislerp(name: str, summary: str, *, deltas: bool) -> Method:
    gram = Need(NeedKind.DELTA_GRAM if deltas else NeedKind.GRAM)

    def resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
        count = len(settings.experts)
        if count == 1:
            return Scalars((ExpertScalars(),))
        own = matrix(values[gram], count)
        weights = direction_mean(own, _weights(settings), settings.number("eps"))
        return Scalars(tuple(ExpertScalars(weight=weight) for weight in weights))

    return Method(
        name=name,
        summary=summary,
        source="mergekit 0.1.5",
        scope=Scope.ELEMENT,
        needs_base=deltas,
        omitted_is_noop=deltas,
        parameters=_PARAMETERS,
        sweep=TASK_VECTORS if deltas else WEIGHTED_SUM,
        resolve_with=resolve,
        needs=lambda settings: (gram,) if len(settings.experts) > 1 else (),
        check=_check,
        choose=_choose,
    )


def _choose(settings: Settings, base: bool) -> Method:
    return MULTISLERP_DELTAS if base else MULTISLERP


MULTISLERP = _multislerp(
    "multislerp", "weighted mean of directions, at the mean length", deltas=False
)
MULTISLERP_DELTAS = _multislerp(
    "multislerp_deltas", "multislerp of the differences from the base", deltas=True
)
