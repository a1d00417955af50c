"""passthrough: one model as it is, times `scale`.

With scale 1 and the same dtype its bytes are copied.
"""

from collections.abc import Sequence

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, NeedValues, Scope
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.methods.terms import ExpertScalars, Scalars


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    return Scalars((ExpertScalars(weight=settings.number("scale", 0)),))


PASSTHROUGH = Method(
    name="passthrough",
    summary="one model, unchanged or scaled",
    source="mergekit 0.1.5",
    scope=Scope.ELEMENT,
    needs_base=False,
    omitted_is_noop=False,
    parameters=(
        Parameter(name="scale", default=1.0, meaning="factor on every weight", per_expert=True),
    ),
    sweep=WEIGHTED_SUM,
    resolve_with=_resolve,
    maximum_models=1,
    base_is_term=True,
)
