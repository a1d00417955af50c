"""base + lambda * sum w_i m_i d_i / divisor in one sweep over cache-sized pieces.

Convert, subtract, trim, mask, weigh, elect, sum, divide, add and round, per piece: memory sees each
input once and the output once. The sums of the positive and of the negative terms are kept apart,
so the sign is elected after one pass over the experts, and no expert's delta is kept. Operation by
operation the same as `eager.task_vectors`.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import boolean, float32, int64, uint32, void
from mergepipe.methods.fused.masks import drop
from mergepipe.methods.fused.pieces import COARSE, PIECE, SAME, SIGN_ROOM, load, load_delta, store

F = np.float32
ZERO = np.float32(0)
INFINITE = np.float32(np.inf)


@kernel()
def _gather_signed(
    d: Any, n: Any, factor: Any, weight: Any, positive: Any, negative: Any, above: Any, below: Any
) -> None:
    """Add weighted terms, and their weights, to the side of their sign."""
    for i in range(n):
        v = d[i] * factor
        up = v > ZERO
        down = v < ZERO
        positive[i] += v if up else ZERO
        negative[i] += v if down else ZERO
        above[i] += weight if up else ZERO
        below[i] += weight if down else ZERO


@kernel()
def _elect(n: Any, normalize: Any, positive: Any, negative: Any, above: Any, below: Any) -> None:
    """Set positive to the elected side's sum, over its weights if `normalize`."""
    if normalize:
        for i in range(n):
            plus = positive[i] >= -negative[i]
            divisor = above[i] if plus else below[i]
            divisor = F(1) if divisor == ZERO else divisor
            positive[i] = (positive[i] if plus else negative[i]) / divisor
    else:
        for i in range(n):
            plus = positive[i] >= -negative[i]
            positive[i] = positive[i] if plus else negative[i]


@kernel(
    void(
        int64,
        int64,
        int64,
        int64,
        int64[::1],
        int64[::1],
        int64[::1],
        float32[::1],
        float32[::1],
        float32[::1],
        float32[::1],
        float32[::1],
        uint32[:, ::1],
        boolean[::1],
        boolean,
        boolean,
        float32,
        float32,
        int64,
        int64,
    )
)
def sweep(
    length: Any,
    start: Any,
    base_dtype: Any,
    base_address: Any,
    kinds: Any,
    addresses: Any,
    skips: Any,
    levels: Any,
    thresholds: Any,
    ceilings: Any,
    factors: Any,
    weights: Any,
    masks: Any,
    masked: Any,
    elect: Any,
    normalize: Any,
    divisor: Any,
    scale: Any,
    out_dtype: Any,
    out_address: Any,
) -> None:
    """Merge `length` elements; arrays have one entry per expert.

    kinds, addresses, skips, levels  the terms (`pieces`)
    thresholds, ceilings  trim, 0 and infinity for none; factors: w_i rescale_i; weights: w_i
    masks       three key words and the limit; used where `masked`
    divisor     of the sum where no sign is elected; scale: lambda
    """
    base = on_stack(PIECE, np.float32)
    d = on_stack(PIECE, np.float32)
    positive = on_stack(PIECE, np.float32)
    negative = on_stack(PIECE, np.float32)
    above = on_stack(PIECE, np.float32)
    below = on_stack(PIECE, np.float32)
    signs = on_stack(SIGN_ROOM, np.int8)
    for first in range(0, length, PIECE):
        n = min(PIECE, length - first)
        load(base_dtype, base_address, first, n, base)
        for i in range(n):
            positive[i] = ZERO
            negative[i] = ZERO
            above[i] = ZERO
            below[i] = ZERO
        for k in range(kinds.size):
            kind = kinds[k]
            if kind == SAME:
                continue
            load_delta(
                kind, addresses[k], skips[k], levels[k], thresholds[k], first, n, base, signs, d
            )
            ceiling = ceilings[k]
            if ceiling < INFINITE and kind != COARSE:
                for i in range(n):
                    d[i] = ZERO if abs(d[i]) > ceiling else d[i]
            if masked[k]:
                m = masks[k]
                drop(m[0], m[1], m[2], m[3], start + first, n, d)
            factor = factors[k]
            if elect:
                _gather_signed(d, n, factor, weights[k], positive, negative, above, below)
            else:
                for i in range(n):
                    positive[i] += d[i] * factor
        if elect:
            _elect(n, normalize, positive, negative, above, below)
        elif divisor != F(1):
            for i in range(n):
                positive[i] /= divisor
        for i in range(n):
            merged = positive[i] * scale
            base[i] = base[i] if merged == ZERO else base[i] + merged
        store(out_dtype, base, n, out_address, first)
