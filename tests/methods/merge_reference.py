"""Merges in float64 numpy, written from the formulas alone: shares no code with mergepipe.methods.

Inputs are float64 arrays: `base` (n,), `terms` a list of Term below. Results come with the sum of
the terms' magnitudes, which scales the error bound, and a mask of elements where rounding decides
the elected sign.
"""

from dataclasses import dataclass

import numpy as np

SMALL = 2.0**-24


@dataclass
class Term:
    """x or d of one model in float64; `estimate` marks coarse terms, which no trim touches."""

    x: np.ndarray | None = None
    d: np.ndarray | None = None
    estimate: bool = False

    def value(self, base):
        return self.x if self.x is not None else base + self.d

    def size(self, base):
        """What rounding errors of the value are relative to."""
        if self.x is not None:
            return np.abs(self.x)
        assert self.d is not None
        return np.abs(base) + np.abs(self.d)

    def delta(self, base):
        return self.d if self.d is not None else self.x - base


@dataclass
class Result:
    value: np.ndarray
    magnitude: np.ndarray
    doubtful: np.ndarray


def weighted_sum(base, terms, weights, normalize):
    values = [t.value(base) for t in terms]
    total = sum(w * x for w, x in zip(weights, values, strict=True))
    divisor = sum(weights) if normalize else 1.0
    condition = sum(map(abs, weights)) / abs(divisor) if normalize else 0.0
    y = total / divisor
    size = sum(abs(w) * t.size(base) for w, t in zip(weights, terms, strict=True)) / abs(divisor)
    return Result(y, size + abs(y) * condition, np.zeros(len(y), bool))


def slerp(base, terms, t):
    a, b = (term.value(base) for term in terms)
    na, nb = np.sqrt(np.dot(a, a)), np.sqrt(np.dot(b, b))
    cosine = np.dot(a, b) / ((na if na > 1e-8 else 1) * (nb if nb > 1e-8 else 1))
    if abs(cosine) > 0.9995:
        weights = (1 - t, t)
    else:
        theta = np.arccos(cosine)
        weights = (np.sin((1 - t) * theta) / np.sin(theta), np.sin(t * theta) / np.sin(theta))
    return weighted_sum(base, terms, weights, False)


def trim_threshold(d, density):
    """The k-th largest |d|, in float32 where the deltas live; (threshold, kept mask)."""
    size = np.abs(d.astype(np.float32))
    if density >= 1:
        return 0.0
    if density <= 0:
        return np.inf
    k = max(1, int(density * len(size)))
    return float(np.sort(size)[len(size) - k])


def trimmed(d, threshold):
    """What stays of d. Compared in float32, where d = x - base is correctly rounded."""
    return np.where(np.abs(d.astype(np.float32)) >= threshold, d, 0)


def task_vectors(base, deltas, weights, factors, elect, normalize, scale):
    """deltas: sparsified; factors: weight times rescale."""
    terms = [f * d for f, d in zip(factors, deltas, strict=True)]
    sizes = sum(np.abs(t) for t in terms)
    n = len(base)
    doubtful = np.zeros(n, bool)
    if elect:
        total = sum(terms)
        error = (len(terms) + 4) * SMALL * sizes
        doubtful = (sizes > 0) & (np.abs(total) <= error)
        sign = np.where(total >= 0, 1, -1)
        kept = [np.sign(t) == sign for t in terms]
        merged = sum(np.where(k, t, 0) for k, t in zip(kept, terms, strict=True))
        sizes = sum(np.where(k, np.abs(t), 0) for k, t in zip(kept, terms, strict=True))
        divisor = sum(np.where(k, w, 0.0) for k, w in zip(kept, weights, strict=True))
        spread = sum(np.where(k, abs(w), 0.0) for k, w in zip(kept, weights, strict=True))
        divisor = np.where(divisor == 0, 1.0, divisor)
    else:
        merged = sum(terms)
        divisor = np.full(n, sum(weights))
        spread = np.full(n, sum(map(abs, weights)))
        divisor[np.abs(divisor) < 1e-8] = 1.0
    if normalize:
        merged = merged / divisor
        sizes = (sizes + np.abs(merged * divisor) * spread / np.abs(divisor)) / np.abs(divisor)
    return Result(base + scale * merged, np.abs(base) + abs(scale) * sizes, doubtful)


def l1_factor(before, after):
    a, b = np.abs(before).sum(), np.abs(after).sum()
    return 1.0 if a < 1e-7 or b < 1e-7 else a / b


def mask_numbers(seed, key, expert, indices):
    """The documented generator, in numpy uint64."""
    word = (1 << 64) - 1
    low = np.uint64(0xFFFFFFFF)

    def splitmix(x):
        x = (x + 0x9E3779B97F4A7C15) & word
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
        return x ^ (x >> 31)

    def mix(x):
        x = x ^ (x >> np.uint64(16))
        x = (x * np.uint64(0x7FEB352D)) & low
        x = x ^ (x >> np.uint64(15))
        x = (x * np.uint64(0x846CA68B)) & low
        return x ^ (x >> np.uint64(16))

    first = splitmix(splitmix(splitmix(seed) ^ key) ^ expert)
    third = splitmix(first) & 0xFFFFFFFF
    i = np.asarray(indices, np.uint64)
    high = mix((i >> np.uint64(32)) ^ np.uint64(third))
    inner = mix((i & low) ^ np.uint64(first & 0xFFFFFFFF))
    return mix(inner ^ np.uint64(first >> 32) ^ high)


def half_unit(y, dtype):
    """Half a unit in the last place of |y| in a float dtype."""
    digits, least = {
        "BF16": (7, -126),
        "F16": (10, -14),
        "F32": (23, -126),
        "F64": (52, -1022),
        "F8_E4M3": (3, -6),
        "F8_E5M2": (2, -14),
    }[dtype]
    exponent = np.maximum(np.frexp(np.maximum(np.abs(y), 1e-300))[1] - 1, least)
    return np.ldexp(0.5, exponent - digits)
