"""What the task-vector methods share: d_i = x_i - base, sparsified, weighted, merged, added.

    y = base + lambda * sum w_i m_i d_i / divisor

m_i is the method's mask (trim, random, elected sign). The divisor is 1 unless `normalize`; then it
is the sum of the weights kept at that element where signs are elected (0 counts as 1), and the
plain weight sum otherwise (below 1e-8 counts as 1).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mergepipe.methods.linear import WEIGHT
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import (
    Method,
    Need,
    NeedValues,
    Scope,
    Sweep,
    no_further_check,
    no_needs,
)
from mergepipe.methods.sweeps import TASK_VECTORS
from mergepipe.methods.terms import ExpertScalars, Scalars

LAMBDA = Parameter(name="lambda", default=1.0, meaning="factor on the merged delta")
DENSITY = Parameter(
    name="density",
    default=1.0,
    meaning="share of the delta to keep",
    per_expert=True,
    lowest=0.0,
    highest=1.0,
)

RESCALE_NORM = Parameter(
    name="rescale_norm",
    default="density",
    meaning="by the chance to stay, or to the L1 norm before the mask",
    kind=str,
    choices=("density", "l1"),
    mergekit_default="l1",
)
# All of mergekit's family take these, whether they sparsify or not; int8_mask only saves it memory.
_IGNORED = ("int8_mask", "density", "rescale")

# One expert's scalars, from its index, the parameters, the statistics and its coarse share.
Sparsify: TypeAlias = Callable[[int, Settings, NeedValues, float], ExpertScalars]


def keep_all(index: int, settings: Settings, values: NeedValues, share: float) -> ExpertScalars:
    """No sparsification: the weight alone."""
    return ExpertScalars(weight=settings.number("weight", index))


def task_vector_method(
    name: str,
    summary: str,
    source: str,
    *,
    elect: bool,
    normalize: bool,
    sparsify: Sparsify = keep_all,
    parameters: tuple[Parameter, ...] = (),
    needs: Callable[[Settings], tuple[Need, ...]] = no_needs,
    check: Callable[[Settings], None] = no_further_check,
    aliases: tuple[str, ...] = (),
    scope: Scope = Scope.ELEMENT,
    sweep: Sweep = TASK_VECTORS,
    extras: Callable[[Settings], tuple[float, ...]] = lambda settings: (),
    mergekit_normalize: bool | None = None,
) -> Method:
    """A method of the family; `normalize` is its default, `parameters` what it has of its own."""
    own = tuple(parameter.name for parameter in parameters)

    def resolve(settings: Settings, values: NeedValues, shares: Sequence[float]) -> Scalars:
        return Scalars(
            tuple(
                sparsify(index, settings, values, shares[index])
                for index in range(len(settings.experts))
            ),
            elect=elect,
            normalize=settings.flag("normalize"),
            scale=settings.number("lambda"),
            extras=extras(settings),
        )

    return Method(
        name=name,
        summary=summary,
        source=source,
        scope=scope,
        needs_base=True,
        omitted_is_noop=True,
        parameters=(
            WEIGHT,
            *parameters,
            Parameter(
                name="normalize",
                default=normalize,
                meaning="divide by the sum of the weights",
                kind=bool,
                mergekit_default=mergekit_normalize,
            ),
            LAMBDA,
        ),
        sweep=sweep,
        resolve_with=resolve,
        needs=needs,
        check=check,
        ignored=tuple(name for name in _IGNORED if name not in own),
        aliases=aliases,
    )
