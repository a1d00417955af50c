"""nearswap: towards another model where it is near the base. alchemonaut, QuartetAnemoi, 2024.

    y = base + d min(1, t / max(|d|, 1e-6))

so the other model where it differs by at most t, and a step of t where it differs by more.
"""

from collections.abc import Sequence

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, NeedValues, Scope
from mergepipe.methods.sweeps import NEARSWAP as SWEEP
from mergepipe.methods.terms import ExpertScalars, Scalars


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """`extras` is (t,)."""
    return Scalars((ExpertScalars(),), extras=(settings.number("t"),))


NEARSWAP = Method(
    name="nearswap",
    summary="the other model where it is near the base, a step towards it elsewhere",
    source="alchemonaut, QuartetAnemoi-70B-t0.0001, 2024; mergekit 0.1.5",
    scope=Scope.ELEMENT,
    needs_base=True,
    omitted_is_noop=True,
    parameters=(
        Parameter(name="t", default=None, meaning="the longest step from the base", lowest=0.0),
    ),
    sweep=SWEEP,
    resolve_with=_resolve,
    maximum_models=1,
)
