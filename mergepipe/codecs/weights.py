"""Blocks as whole weights: views of their upper 16 bits, which is what `residual` codes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs.floats import FloatFormat
from mergepipe.codecs.scratch import elements, scratch


@dataclass(frozen=True, slots=True)
class Weights:
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
    raw: npt.NDArray[np.uint8], base: npt.NDArray[np.uint8], format_: FloatFormat
) -> Weights:
    """A block and its base; views of the buffers where those are aligned, else scratch memory."""
    whole = raw.size // format_.width_bytes * format_.width_bytes
    tail = raw[whole:].tobytes()
    if format_.width_bytes == 2:
        x, b = elements("tuned", raw[:whole], np.uint16), elements("base", base[:whole], np.uint16)
        return Weights(format_, x, b, None, None, tail)
    wide = elements("tuned", raw[:whole], np.uint32)
    base_wide = elements("base", base[:whole], np.uint32)
    tuned = upper_halves("tuned upper", wide)
    return Weights(format_, tuned, upper_halves("base upper", base_wide), wide, base_wide, tail)


def upper_halves(name: str, wide: Any) -> Any:
    """The upper 16 bits of uint32 values, in scratch memory `name`."""
    upper = scratch(name, wide.size, np.uint16)
    np.right_shift(wide, 16, out=upper, casting="unsafe")
    return upper
