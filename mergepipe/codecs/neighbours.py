"""Packed trits in the order that merge methods take them: five neighbouring weights to a byte.

The coarse layer packs weights that lie a stripe apart (trits.py), because that is what vector code
is fast at; `methods.terms.Coarse` has them in order, because a range may begin anywhere.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs.trits import unpack_into
from mergepipe.codecs.workspace import Workspace
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import read_only, uint8, void

_U8 = uint8[::1]
_READ_U8 = read_only(uint8[::1])


@kernel(void(_READ_U8, _U8))
def _pack(trits: Any, out: Any) -> None:
    for i in range(out.size):
        at = 5 * i
        low = trits[at] + 3 * trits[at + 1] + 9 * trits[at + 2]
        out[i] = low + 27 * trits[at + 3] + 81 * trits[at + 4]


def in_order(
    packed: npt.NDArray[np.uint8], count: int, workspace: Workspace
) -> npt.NDArray[np.uint8]:
    """Packed trits (trits.py) of `count` weights, five neighbours to a byte, the first lowest."""
    trits = workspace.array("trits in order", packed.size * 5, np.uint8)
    unpack_into(packed, trits)
    out = np.empty(-(-count // 5), np.uint8)
    _pack(trits, out)
    return out
