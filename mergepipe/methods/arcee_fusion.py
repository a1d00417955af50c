"""arcee_fusion: take over the changes that matter most, whole. Arcee AI, 2024.

A change's importance is |d| times the Kullback-Leibler divergence of its row's softmax from that of
the base's row. Changes at or above median + 1.5 (upper - lower quartile) of the tensor are taken
over. Quantiles are exact and not interpolated: of n values in order the ones at int(q (n - 1)).
"""

from collections.abc import Sequence

from mergepipe.methods.parameters import Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import FUSION
from mergepipe.methods.terms import ExpertScalars, Scalars

_NEED = Need(NeedKind.IMPORTANCE, 0)


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """`extras` is (threshold of the importance,)."""
    return Scalars((ExpertScalars(),), extras=tuple(values[_NEED]))


ARCEE_FUSION = Method(
    name="arcee_fusion",
    summary="the most important changes of one model, whole",
    source="Arcee AI, arcee_fusion in mergekit 0.1.5",
    scope=Scope.ROW,
    needs_base=True,
    omitted_is_noop=True,
    parameters=(),
    sweep=FUSION,
    resolve_with=_resolve,
    needs=lambda settings: (_NEED,),
    maximum_models=1,
)
