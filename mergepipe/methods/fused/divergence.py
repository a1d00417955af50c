"""Kullback-Leibler divergence between the softmaxes of rows, in float64.

With an exponential of its own, in operations that every CPU rounds alike; sums run in 64 places
that are added in order at the end.
"""

from math import factorial, log
from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_double, on_stack
from mergepipe.kernels.signatures import float64, void

D = np.float64
I64 = np.int64
_PLACES = 64
_SMALLEST = D(-700.0)
_LOG2_E = D(1.4426950408889634)
# ln 2 in two parts: multiples of the first by whole numbers below 2^11 are exact.
_LN2_HIGH = D(float.fromhex("0x1.62e42fee00000p-1"))
_LN2_LOW = D(float.fromhex("0x1.a39ef35793c76p-33"))
# The terms 1/n! from n = 13 down: the next one is below 2^-57 within ln 2 / 2 of 0.
_SERIES = tuple(1.0 / factorial(n) for n in range(13, -1, -1))


@kernel(float64(float64), inline=True)
def exponential(x: Any) -> Any:
    """e^x of x at most 0, within a unit or two in the last place; about 0 below -700."""
    bounded = max(x, _SMALLEST)
    whole = np.floor(bounded * _LOG2_E + D(0.5))
    rest = (bounded - whole * _LN2_HIGH) - whole * _LN2_LOW
    total = D(0)
    for term in _SERIES:
        total = total * rest + D(term)
    return total * as_double((I64(whole) + I64(1023)) << I64(52))


@kernel()
def _largest(row: Any) -> Any:
    largest = row[0]
    for i in range(1, row.size):
        largest = max(largest, row[i])
    return largest


@kernel(void(float64[:, ::1], float64[:, ::1], float64[::1]))
def divergences(after: Any, before: Any, out: Any) -> None:
    """Fill out with sum p (log p - log q) of each row, softmaxes p of after and q of before."""
    new, old, difference = on_stack(_PLACES, D), on_stack(_PLACES, D), on_stack(_PLACES, D)
    columns = after.shape[1]
    for row in range(after.shape[0]):
        x, b = after[row], before[row]
        highest, highest_before = _largest(x), _largest(b)
        for i in range(_PLACES):
            new[i] = D(0)
            old[i] = D(0)
            difference[i] = D(0)
        for first in range(0, columns, _PLACES):
            n = min(_PLACES, columns - first)
            for i in range(n):
                u = x[first + i] - highest
                v = b[first + i] - highest_before
                e = exponential(u)
                new[i] += e
                old[i] += exponential(v)
                difference[i] += e * (u - v)
        new_sum, old_sum, weighted = D(0), D(0), D(0)
        for i in range(_PLACES):
            new_sum += new[i]
            old_sum += old[i]
            weighted += difference[i]
        out[row] = weighted / new_sum - log(new_sum / old_sum)
