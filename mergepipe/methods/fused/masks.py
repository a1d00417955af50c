"""Random masks in numba: the numbers of `randomness`, sixteen elements at a time."""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.methods.randomness import FIRST_MULTIPLIER, SECOND_MULTIPLIER

U = np.uint32
_FIRST = np.uint32(FIRST_MULTIPLIER)
_SECOND = np.uint32(SECOND_MULTIPLIER)


@kernel(inline=True)
def mix(x: Any) -> Any:
    """One 32-bit word through the mixer."""
    x = U(x ^ U(x >> U(16)))
    x = U(x * _FIRST)
    x = U(x ^ U(x >> U(15)))
    x = U(x * _SECOND)
    return U(x ^ U(x >> U(16)))


@kernel()
def _drop(
    first: Any, second: Any, third: Any, limit: Any, index: Any, begin: Any, end: Any, d: Any
) -> None:
    """Zero d[begin:end] where the mask drops; their indices have one and the same high word."""
    low = U(index & 0xFFFFFFFF)
    key = U(second ^ mix(U(U(index >> 32) ^ third)))
    part = d[begin:end]
    for i in range(end - begin):
        number = mix(U(mix(U(U(low + U(i)) ^ first)) ^ key))
        part[i] = part[i] if number < limit else np.float32(0)


@kernel()
def drop(first: Any, second: Any, third: Any, limit: Any, index: Any, n: Any, d: Any) -> None:
    """Zero the elements of d that the mask drops; `index` is the first one's in its tensor.

    limit  uint32; a mask that keeps everything is not to be applied at all
    """
    until = min(n, (1 << 32) - (index & 0xFFFFFFFF))
    _drop(first, second, third, limit, index, 0, until, d)
    if until < n:
        _drop(first, second, third, limit, index + until, until, n, d)
