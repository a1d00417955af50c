"""karcher: the mean on the sphere, all models alike. Karcher, CPAM 1977.

The point of the unit sphere with the least sum of squared angles to all models, times their mean
length; found in at most `max_iter` steps, until one is shorter than `tol`. All of it follows from
the dot products of the whole tensors, so the element pass is a weighted sum.
"""

from collections.abc import Sequence

from mergepipe.methods.gram import karcher_mean, matrix
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.methods.terms import ExpertScalars, Scalars

_GRAM = Need(NeedKind.GRAM)


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    count = len(settings.experts)
    if count == 1:
        return Scalars((ExpertScalars(),))
    gram = matrix(values[_GRAM], count)
    weights = karcher_mean(gram, int(settings.number("max_iter")), settings.number("tol"))
    return Scalars(tuple(ExpertScalars(weight=weight) for weight in weights))


KARCHER = Method(
    name="karcher",
    summary="mean on the sphere: direction nearest to all models, of their mean length",
    source="Karcher, Riemannian center of mass and mollifier smoothing, CPAM 1977",
    scope=Scope.ELEMENT,
    needs_base=False,
    omitted_is_noop=False,
    parameters=(
        Parameter(
            name="max_iter", default=10.0, meaning="the most steps to take", lowest=0.0, whole=True
        ),
        Parameter(
            name="tol",
            default=1e-5,
            meaning="stop at steps shorter than this, in radians",
            lowest=0.0,
        ),
    ),
    sweep=WEIGHTED_SUM,
    resolve_with=_resolve,
    needs=lambda settings: (_GRAM,) if len(settings.experts) > 1 else (),
    base_is_term=True,
)
