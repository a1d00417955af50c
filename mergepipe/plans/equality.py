"""Which blocks of a line's inputs are the base's: by identity, before anything is read."""

import numpy as np
import numpy.typing as npt

from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import LinePlan, TermKind
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import Tensors


def equal_blocks(line: LinePlan, tensors: Tensors) -> npt.NDArray[np.bool_]:
    """Which blocks of a line's inputs are the base's, or are not there: a row per input.

    Blocks are those of the line. A tensor that a line makes, and what low-rank factors change, is
    never the base's.
    """
    grid = Grid.of(tensors[line.like])
    equal = np.zeros((len(line.inputs), grid.blocks), np.bool_)
    base = stored_base(line)
    under = None if base is None else tensors[base]
    pairs = under is not None and Grid.of(under) == grid
    for row, term in enumerate(line.inputs):
        if term.source is None and term.factors is None:
            equal[row] = True
        elif term.stored is not None and term.kind is TermKind.FULL and term.factors is None:
            tensor = tensors[term.stored]
            if (
                pairs
                and under is not None
                and tensor.dtype == under.dtype
                and Grid.of(tensor) == grid
            ):
                equal[row] = (_rows(tensor) == _rows(under)).all(axis=1)
    return equal


def every_step(line: LinePlan, tensors: Tensors, *, noop: bool) -> bool:
    """Whether a line's base is also read where no input has anything to add to it.

    noop: of the line's method, `omitted_is_noop`.
    """
    base = stored_base(line)
    if base is None or not noop:
        return True
    under = tensors[base]
    return under.dtype != line.dtype or Grid.of(under) != Grid.of(tensors[line.like])


def stored_base(line: LinePlan) -> ObjectId | None:
    """A line's base, if it is a stored tensor as it stands."""
    return None if line.base is None or line.base.factors is not None else line.base.stored


def _rows(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.blocks, np.uint8).reshape(-1, ID_BYTES)
