"""sum w_i x_i / divisor in one sweep over cache-sized pieces.

Operation by operation the same as `eager.weighted_sum`.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import float32, int64, void
from mergepipe.methods.fused.pieces import DELTA, PIECE, SAME, SIGN_ROOM, load, load_delta, store

F = np.float32
ZERO = np.float32(0)


@kernel(
    void(
        int64,
        int64,
        int64,
        int64[::1],
        int64[::1],
        int64[::1],
        float32[::1],
        float32[::1],
        float32,
        int64,
        int64,
    )
)
def sweep(
    length: Any,
    base_dtype: Any,
    base_address: Any,
    kinds: Any,
    addresses: Any,
    skips: Any,
    levels: Any,
    weights: Any,
    divisor: Any,
    out_dtype: Any,
    out_address: Any,
) -> None:
    """Merge `length` elements; arrays have one entry per model; base_address 0: no base."""
    base = on_stack(PIECE, np.float32)
    x = on_stack(PIECE, np.float32)
    total = on_stack(PIECE, np.float32)
    signs = on_stack(SIGN_ROOM, np.int8)
    for first in range(0, length, PIECE):
        n = min(PIECE, length - first)
        if base_address != 0:
            load(base_dtype, base_address, first, n, base)
        for i in range(n):
            total[i] = ZERO
        for k in range(kinds.size):
            kind = kinds[k]
            weight = weights[k]
            if kind == SAME:
                for i in range(n):
                    total[i] += base[i] * weight
            elif kind < DELTA:
                load(kind, addresses[k], first, n, x)
                for i in range(n):
                    total[i] += x[i] * weight
            else:
                load_delta(kind, addresses[k], skips[k], levels[k], ZERO, first, n, base, signs, x)
                for i in range(n):
                    total[i] += (base[i] + x[i]) * weight
        if divisor != F(1):
            for i in range(n):
                total[i] /= divisor
        store(out_dtype, total, n, out_address, first)
