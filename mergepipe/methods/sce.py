"""sce: select by variance, calculate weights from energies, erase minorities. Wan et al., 2024.

"FuseChat" (arXiv 2408.07990). Of the elements at which the d differ between the models at all, the
share `select_topk` with the largest variance stays (those of equal models go; at 1 everything
stays). Of what is left, w_i is the mean d_i^2, divided by their sum; the elected sign is that of
the plain sum of the d (0 counts as +), and

    y = base + sum w_i d_i / sum w_i   over the models that agree with it

Energies that sum to at most 1e-6 count as equal (as in mergekit 0.1.5): below a root mean square
change of about 1e-3 all models weigh the same.
"""

from collections.abc import Sequence

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope
from mergepipe.methods.sweeps import SCE as SWEEP
from mergepipe.methods.terms import ExpertScalars, Scalars

SMALLEST_ENERGY = 1e-6


def _need(settings: Settings) -> Need:
    return Need(NeedKind.SPREAD, density=settings.number("select_topk"))


def _resolve(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """`extras` is (threshold of the variance,)."""
    threshold, *energies = values[_need(settings)]
    total = sum(energies)
    if not total > SMALLEST_ENERGY:
        energies, total = [1.0] * len(energies), float(len(energies))
    experts = tuple(ExpertScalars(weight=energy / total) for energy in energies)
    # Its pass elects and divides by itself; planning has to know that coarse readings vote.
    return Scalars(experts, elect=True, normalize=True, extras=(threshold,))


SCE = Method(
    name="sce",
    summary="where the models differ most, weighted by energy, sign election",
    source="Wan et al., FuseChat, arXiv 2408.07990",
    scope=Scope.ELEMENT,
    needs_base=True,
    omitted_is_noop=True,
    parameters=(
        Parameter(
            name="select_topk",
            default=1.0,
            meaning="share of the elements to keep, of the largest variance",
            lowest=0.0,
            highest=1.0,
        ),
    ),
    sweep=SWEEP,
    resolve_with=_resolve,
    needs=lambda settings: (_need(settings),),
    ignored=("int8_mask",),
)
