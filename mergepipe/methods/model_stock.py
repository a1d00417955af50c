"""model_stock: between the base and the mean of the models, by how far they agree.

Jang et al., "Model Stock: All we need is just a few fine-tuned models", ECCV 2024. Of N models,
with c the mean cosine between their d over all pairs:

    y = base + t mean d,   t = N c / (1 + (N - 1) c)

c is of the whole tensor, or of each row of it where `filter_wise` (`model_stock_rows`).
"""

from collections.abc import Sequence

from mergepipe.methods.gram import matrix, stock_share
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope, no_needs
from mergepipe.methods.sweeps import STOCK_ROWS, TASK_VECTORS
from mergepipe.methods.terms import ExpertScalars, Scalars

_GRAM = Need(NeedKind.DELTA_GRAM)
_PARAMETERS = (
    Parameter(
        name="filter_wise", default=False, meaning="one share for each row of a tensor", kind=bool
    ),
)
_SOURCE = "Jang et al., Model Stock, ECCV 2024"


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    count = len(settings.experts)
    weight = stock_share(matrix(values[_GRAM], count)) / count
    return Scalars((ExpertScalars(weight=weight),) * count)


def _resolve_rows(
    settings: Settings, values: NeedValues, coarse_shares: Sequence[float]
) -> Scalars:
    count = len(settings.experts)
    return Scalars((ExpertScalars(weight=1.0 / count),) * count)


def _choose(settings: Settings, base: bool) -> Method:
    return MODEL_STOCK_ROWS if settings.flag("filter_wise") else MODEL_STOCK


MODEL_STOCK = Method(
    name="model_stock",
    summary="mean of the models, drawn to the base by the angles between them",
    source=_SOURCE,
    scope=Scope.ELEMENT,
    needs_base=True,
    omitted_is_noop=True,
    parameters=_PARAMETERS,
    sweep=TASK_VECTORS,
    resolve_with=_resolve,
    needs=lambda settings: (_GRAM,),
    minimum_models=2,
    choose=_choose,
)
MODEL_STOCK_ROWS = Method(
    name="model_stock_rows",
    summary="model_stock, row by row",
    source=_SOURCE,
    scope=Scope.ROW,
    needs_base=True,
    omitted_is_noop=True,
    parameters=_PARAMETERS,
    sweep=STOCK_ROWS,
    resolve_with=_resolve_rows,
    needs=no_needs,
    minimum_models=2,
    choose=_choose,
)
