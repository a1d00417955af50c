"""The dtype that differing inputs come to where a recipe names none: as torch promotes them."""

from collections.abc import Sequence

from mergepipe.dtypes import F32, F64, DType


def promoted(dtypes: Sequence[DType]) -> DType:
    """The dtype itself if all are the same; else float32, or float64 if one of them is that."""
    different = set(dtypes)
    if len(different) == 1:
        return dtypes[0]
    return F64 if F64 in different else F32
