"""ram, ramplus_tl: a model's changes in full where it alone changes a weight. arXiv 2601.13572.

A model is active at an element where |d| > epsilon. The merged delta is that of the one model that
is active, or the mean over those that are. ramplus_tl multiplies a sole model's delta by
1 + r min(alpha, s_i / u_i), u_i and s_i the elements of the tensor at which model i is active alone
and with others (0 where it never is alone).
"""

from collections.abc import Sequence

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import RAM as SWEEP
from mergepipe.methods.terms import ExpertScalars, Scalars

_SOURCE = "Reinforced Agent Merging, arXiv 2601.13572"
_EPSILON = Parameter(
    name="epsilon", default=1e-5, meaning="the largest |d| that counts as no change", lowest=0.0
)


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """`extras` is (epsilon,)."""
    count = len(settings.experts)
    return Scalars((ExpertScalars(),) * count, extras=(settings.number("epsilon"),))


def _need(settings: Settings) -> Need:
    return Need(NeedKind.SHARING, epsilon=settings.number("epsilon"))


def _resolve_plus(
    settings: Settings, values: NeedValues, coarse_shares: Sequence[float]
) -> Scalars:
    """The factors of sole deltas are the experts' `rescale`."""
    counts = values[_need(settings)]
    experts = []
    for alone, shared in zip(counts[::2], counts[1::2], strict=True):
        overlap = min(settings.number("alpha"), shared / alone) if alone else 0.0
        experts.append(ExpertScalars(rescale=1.0 + settings.number("r") * overlap))
    return Scalars(tuple(experts), extras=(settings.number("epsilon"),))


RAM = Method(
    name="ram",
    summary="deltas where one model changes a weight, their mean where several do",
    source=_SOURCE,
    scope=Scope.ELEMENT,
    needs_base=True,
    omitted_is_noop=True,
    parameters=(_EPSILON,),
    sweep=SWEEP,
    resolve_with=_resolve,
)
RAMPLUS_TL = Method(
    name="ramplus_tl",
    summary="ram, with sole changes strengthened by how much a model shares",
    source=_SOURCE,
    scope=Scope.ELEMENT,
    needs_base=True,
    omitted_is_noop=True,
    parameters=(
        Parameter(name="r", default=0.1, meaning="how much sole changes are strengthened"),
        Parameter(
            name="alpha",
            default=0.2,
            meaning="the most that shared over sole changes counts",
            lowest=0.0,
        ),
        _EPSILON,
    ),
    sweep=SWEEP,
    resolve_with=_resolve_plus,
    needs=lambda settings: (_need(settings),),
)
