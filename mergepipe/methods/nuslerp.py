"""nuslerp: spherical interpolation between two models by their weights, or between differences.

At share t = w_2 / (w_1 + w_2) of the arc from a to b (half way where the weights sum to nothing),
with the angle between

* the whole tensors: `nuslerp`;
* each row of them (`nuslerp_flatten` false): `nuslerp_rows`;
* each column (and `nuslerp_row_wise` true, mergekit's name for it): `nuslerp_columns`, elements
  that differ in the first dimension only;

and of differences from a base likewise, which the result is added to: `nuslerp_deltas`...
On the line where a and b are colinear. Norms are at least 1e-7.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from mergepipe.methods.gram import arc
from mergepipe.methods.linear import WEIGHT
from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, Need, NeedKind, NeedValues, Scope, no_needs
from mergepipe.methods.sweeps import (
    ARC_COLUMNS,
    ARC_ROWS,
    DELTA_ARC_COLUMNS,
    DELTA_ARC_ROWS,
    TASK_VECTORS,
    WEIGHTED_SUM,
)
from mergepipe.methods.terms import ExpertScalars, Scalars

SMALLEST_WEIGHT_SUM = 1e-6
_GRAM = Need(NeedKind.GRAM)
_DELTA_GRAM = Need(NeedKind.DELTA_GRAM)
_COLUMNS = Need(NeedKind.COLUMNS)
_DELTA_COLUMNS = Need(NeedKind.DELTA_COLUMNS)


def _share(settings: Settings) -> float:
    """t, from the weights."""
    first, second = (settings.number("weight", index) for index in (0, 1))
    total = first + second
    return 0.5 if abs(total) < SMALLEST_WEIGHT_SUM else second / total


def _whole(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    gram = values[_GRAM] if _GRAM in values else values[_DELTA_GRAM]
    weights = arc(_share(settings), gram[0], gram[1], gram[3])
    return Scalars(tuple(ExpertScalars(weight=weight) for weight in weights))


def _by_row(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """The sweep measures each row; `extras` is (t,), the weights are those on a line."""
    t = _share(settings)
    return Scalars((ExpertScalars(weight=1.0 - t), ExpertScalars(weight=t)), extras=(t,))


def _by_column(settings: Settings, values: NeedValues, coarse_shares: Sequence[float]) -> Scalars:
    """`extras` has the weights of a's columns, then those of b's."""
    t = _share(settings)
    sums = values[_COLUMNS] if _COLUMNS in values else values[_DELTA_COLUMNS]
    count = len(sums) // 3
    pairs = [
        arc(t, *one)
        for one in zip(sums[:count], sums[count : 2 * count], sums[2 * count :], strict=True)
    ]
    extras = tuple(first for first, _ in pairs) + tuple(second for _, second in pairs)
    return Scalars((ExpertScalars(weight=1.0 - t), ExpertScalars(weight=t)), extras=extras)


def _choose(settings: Settings, base: bool) -> Method:
    if settings.flag("nuslerp_flatten"):
        return NUSLERP_DELTAS if base else NUSLERP
    if settings.flag("nuslerp_row_wise"):
        return NUSLERP_DELTAS_COLUMNS if base else NUSLERP_COLUMNS
    return NUSLERP_DELTAS_ROWS if base else NUSLERP_ROWS


NUSLERP = Method(
    name="nuslerp",
    summary="spherical interpolation between two models by their weights",
    source="mergekit 0.1.5",
    scope=Scope.ELEMENT,
    needs_base=False,
    omitted_is_noop=False,
    parameters=(
        WEIGHT,
        Parameter(
            name="nuslerp_flatten",
            default=True,
            meaning="one angle for the whole tensor",
            kind=bool,
        ),
        Parameter(
            name="nuslerp_row_wise",
            default=False,
            meaning="if not, one for each column, not row",
            kind=bool,
        ),
    ),
    sweep=WEIGHTED_SUM,
    resolve_with=_whole,
    needs=lambda settings: (_GRAM,),
    minimum_models=2,
    maximum_models=2,
    choose=_choose,
)
NUSLERP_ROWS = replace(
    NUSLERP,
    name="nuslerp_rows",
    summary="nuslerp, row by row",
    scope=Scope.ROW,
    sweep=ARC_ROWS,
    resolve_with=_by_row,
    needs=no_needs,
)
NUSLERP_COLUMNS = replace(
    NUSLERP,
    name="nuslerp_columns",
    summary="nuslerp, column by column",
    sweep=ARC_COLUMNS,
    resolve_with=_by_column,
    needs=lambda settings: (_COLUMNS,),
)
NUSLERP_DELTAS = replace(
    NUSLERP,
    name="nuslerp_deltas",
    summary="nuslerp of the differences from the base",
    needs_base=True,
    omitted_is_noop=True,
    sweep=TASK_VECTORS,
    needs=lambda settings: (_DELTA_GRAM,),
)
NUSLERP_DELTAS_ROWS = replace(
    NUSLERP_DELTAS,
    name="nuslerp_deltas_rows",
    summary="nuslerp of the differences, row by row",
    scope=Scope.ROW,
    sweep=DELTA_ARC_ROWS,
    resolve_with=_by_row,
    needs=no_needs,
)
NUSLERP_DELTAS_COLUMNS = replace(
    NUSLERP_DELTAS,
    name="nuslerp_deltas_columns",
    summary="nuslerp of the differences, column by column",
    sweep=DELTA_ARC_COLUMNS,
    resolve_with=_by_column,
    needs=lambda settings: (_DELTA_COLUMNS,),
)
NUSLERP_VARIANTS = (
    NUSLERP,
    NUSLERP_ROWS,
    NUSLERP_COLUMNS,
    NUSLERP_DELTAS,
    NUSLERP_DELTAS_ROWS,
    NUSLERP_DELTAS_COLUMNS,
)
