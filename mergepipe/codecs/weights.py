"""Blocks as whole weights: views of their upper 16 bits, which is what `residual` codes."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs.floats import FloatFormat
from mergepipe.codecs.workspace import Workspace


class Weights(Struct, frozen=True):
    """A block and its base.

    tuned, base            uint16: 16-bit floats, or the upper halves of float32
    tuned_wide, base_wide  uint32: float32, else None
    tail                   bytes after the last whole weight
    """

    format: FloatFormat
    tuned: Any
    base: Any
    tuned_wide: Any
    base_wide: Any
    tail: bytes

    @property
    def count(self) -> int:
        """Whole weights."""
        return int(self.tuned.size)


def weights_of(
    raw: npt.NDArray[np.uint8],
    base: npt.NDArray[np.uint8],
    format_: FloatFormat,
    workspace: Workspace,
) -> Weights:
    """A block and its base; views of the buffers where those are aligned, else in the workspace."""
    whole = raw.size // format_.width_bytes * format_.width_bytes
    tail = raw[whole:].tobytes()
    if format_.width_bytes == 2:
        x, b = (
            workspace.elements("tuned", raw[:whole], np.uint16),
            workspace.elements("base", base[:whole], np.uint16),
        )
        return Weights(format=format_, tuned=x, base=b, tuned_wide=None, base_wide=None, tail=tail)
    wide = workspace.elements("tuned", raw[:whole], np.uint32)
    base_wide = workspace.elements("base", base[:whole], np.uint32)
    tuned = upper_halves("tuned upper", wide, workspace)
    return Weights(
        format=format_,
        tuned=tuned,
        base=upper_halves("base upper", base_wide, workspace),
        tuned_wide=wide,
        base_wide=base_wide,
        tail=tail,
    )


def upper_halves(name: str, wide: Any, workspace: Workspace) -> Any:
    """The upper 16 bits of uint32 values, in the workspace's array `name`."""
    upper = workspace.array(name, wide.size, np.uint16)
    np.right_shift(wide, 16, out=upper, casting="unsafe")
    return upper
