"""Sums and histograms over one range, for statistics of whole tensors.

Sums run in float64, element i of every piece into the same place, places added in order at the end:
the compiler may use vectors of any width and the bits stay the same.
"""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_bits, on_stack
from mergepipe.kernels.signatures import boolean, float32, float64, int64, uint32, void
from mergepipe.methods.fused.masks import drop
from mergepipe.methods.fused.pieces import DELTA, PIECE, SAME, SIGN_ROOM, load, load_delta
from mergepipe.methods.order import LOW_BITS, PLACES

F = np.float32
D = np.float64
U = np.uint32


@kernel(
    void(
        int64, int64, int64, int64, int64, int64, int64, float32, uint32[::1], boolean, float64[::1]
    )
)
def l1_norms(
    length: Any,
    start: Any,
    base_dtype: Any,
    base_address: Any,
    kind: Any,
    address: Any,
    skip: Any,
    level: Any,
    mask: Any,
    masked: Any,
    out: Any,
) -> None:
    """Fill out with L1 of d, L1 of d under its mask; `mask` as in `task_vectors.sweep`."""
    base = on_stack(PIECE, np.float32)
    d = on_stack(PIECE, np.float32)
    before = on_stack(PIECE, np.float64)
    before[:] = 0
    after = on_stack(PIECE, np.float64)
    after[:] = 0
    signs = on_stack(SIGN_ROOM, np.int8)
    for first in range(0, length, PIECE):
        n = min(PIECE, length - first)
        if base_address != 0:
            load(base_dtype, base_address, first, n, base)
        load_delta(kind, address, skip, level, F(0), first, n, base, signs, d)
        for i in range(n):
            before[i] += D(abs(d[i]))
        if masked:
            drop(mask[0], mask[1], mask[2], mask[3], start + first, n, d)
        for i in range(n):
            after[i] += D(abs(d[i]))
    out[0] = D(0)
    out[1] = D(0)
    for i in range(PIECE):
        out[0] += before[i]
        out[1] += after[i]


@kernel(void(int64, int64, int64, int64, int64, int64, float32, int64, float64[::1], float64[::1]))
def magnitude_histogram(
    length: Any,
    base_dtype: Any,
    base_address: Any,
    kind: Any,
    address: Any,
    skip: Any,
    level: Any,
    bucket: Any,
    counts: Any,
    norms: Any,
) -> None:
    """Add to `counts` how many |d| fall where.

    bucket  -1: counts of all buckets, by the upper bits; else counts inside this one, by the lower
            bits, and norms = L1 of d, L1 of what lies in higher buckets
    """
    base = on_stack(PIECE, np.float32)
    d = on_stack(PIECE, np.float32)
    total = on_stack(PIECE, np.float64)
    total[:] = 0
    higher = on_stack(PIECE, np.float64)
    higher[:] = 0
    signs = on_stack(SIGN_ROOM, np.int8)
    low = U(PLACES - 1)
    for first in range(0, length, PIECE):
        n = min(PIECE, length - first)
        if base_address != 0:
            load(base_dtype, base_address, first, n, base)
        load_delta(kind, address, skip, level, F(0), first, n, base, signs, d)
        if bucket < 0:
            for i in range(n):
                counts[U(as_bits(abs(d[i])) >> U(LOW_BITS))] += 1.0
            continue
        for i in range(n):
            v = abs(d[i])
            total[i] += D(v)
            higher[i] += D(v) if np.int64(as_bits(v) >> U(LOW_BITS)) > bucket else D(0)
        for i in range(n):
            bits = as_bits(abs(d[i]))
            if np.int64(bits >> U(LOW_BITS)) == bucket:
                counts[bits & low] += 1.0
    for i in range(PIECE):
        norms[0] += total[i]
        norms[1] += higher[i]


@kernel(
    void(
        int64,
        int64,
        int64,
        int64[::1],
        int64[::1],
        int64[::1],
        float32[::1],
        boolean,
        float32[:, ::1],
        float64[:, ::1],
        float64[:, ::1],
    )
)
def gram(
    length: Any,
    base_dtype: Any,
    base_address: Any,
    kinds: Any,
    addresses: Any,
    skips: Any,
    levels: Any,
    deltas: Any,
    x: Any,
    sums: Any,
    out: Any,
) -> None:
    """out[i, j] = dot product of the weights of models i and j, or of their d where `deltas`.

    x     float32[models, PIECE], overwritten
    sums  float64[models * models, PIECE], zeros, overwritten
    """
    count = kinds.size
    base = on_stack(PIECE, np.float32)
    signs = on_stack(SIGN_ROOM, np.int8)
    for first in range(0, length, PIECE):
        n = min(PIECE, length - first)
        if base_address != 0:
            load(base_dtype, base_address, first, n, base)
        for k in range(count):
            own = x[k]
            if kinds[k] == SAME:
                for i in range(n):
                    own[i] = F(0) if deltas else base[i]
            elif kinds[k] < DELTA and not deltas:
                load(kinds[k], addresses[k], first, n, own)
            else:
                load_delta(
                    kinds[k], addresses[k], skips[k], levels[k], F(0), first, n, base, signs, own
                )
                if not deltas:
                    for i in range(n):
                        own[i] += base[i]
        for j in range(count):
            for k in range(j, count):
                left = x[j]
                right = x[k]
                place = sums[j * count + k]
                for i in range(n):
                    place[i] += D(left[i]) * D(right[i])
    for j in range(count):
        for k in range(j, count):
            total = D(0)
            for i in range(PIECE):
                total += sums[j * count + k, i]
            out[j, k] = total
            out[k, j] = total
