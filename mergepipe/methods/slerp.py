"""slerp: along the great circle between two models. Shoemake, SIGGRAPH 1985.

With theta the angle between the two whole tensors (norms and dot product in float64):

    y = sin((1-t) theta)/sin(theta) a + sin(t theta)/sin(theta) b

and (1-t) a + t b where they are nearly colinear (|cos theta| > 0.9995). So the element pass is a
weighted sum. A model that is also the base is given as the term `Same`.
"""

from collections.abc import Sequence
from math import acos, sin, sqrt

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.methods.terms import ExpertScalars, Scalars

COLINEAR = 0.9995
SMALLEST_NORM = 1e-8
_GRAM = Need(NeedKind.GRAM)


def coefficients(t: float, gram: Sequence[float]) -> tuple[float, float]:
    """The weights of a and b, from (a.a, a.b, b.a, b.b). A norm below 1e-8 is taken as 1."""
    lengths = (sqrt(gram[0]), sqrt(gram[3]))
    first, second = (length if length > SMALLEST_NORM else 1.0 for length in lengths)
    cosine = gram[1] / first / second
    if not abs(cosine) <= COLINEAR:
        return 1.0 - t, t
    angle = acos(cosine)
    return sin(angle - angle * t) / sin(angle), sin(angle * t) / sin(angle)


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    weights = coefficients(settings.number("t"), values[_GRAM])
    return Scalars(tuple(ExpertScalars(weight=weight) for weight in weights))


SLERP = Method(
    name="slerp",
    summary="spherical interpolation between two models",
    source="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    scope=Scope.ELEMENT,
    needs_base=False,
    omitted_is_noop=False,
    parameters=(
        Parameter(
            name="t",
            default=None,
            meaning="how far to go from the first model (0) to the second (1)",
        ),
    ),
    sweep=WEIGHTED_SUM,
    resolve_with=_resolve,
    needs=lambda settings: (_GRAM,),
    minimum_models=2,
    maximum_models=2,
    base_is_term=True,
)
