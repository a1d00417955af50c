"""The dtype of a tensor that a recipe makes: as it says, else what differing inputs come to."""

from collections.abc import Sequence

from mergepipe.dtypes import F32, F64, DType
from mergepipe.planner.mergekit.rows import Row
from mergepipe.planner.mergekit.schema import Stage


def output_dtype(stage: Stage, row: Row) -> DType:
    """What `out_dtype` and `dtype` mean for one tensor; without them, its inputs as promoted."""
    given = stage.out_dtype or stage.dtype
    if given is not None:
        return given
    cells = [cell.held for cell in (row.base, *row.cells) if cell is not None]
    # An adapter's own dtype says nothing of what the model is in.
    return promoted([held.dtype for held in cells if held is not None])


def promoted(dtypes: Sequence[DType]) -> DType:
    """The dtype itself if all are the same; else float32, or float64 if one of them is that."""
    different = set(dtypes)
    if len(different) == 1:
        return dtypes[0]
    return F64 if F64 in different else F32
