"""The methods of mergekit 0.1.5 in float64 numpy, from their formulas alone (see merge_reference).

Arguments: base (n,), `terms` as in merge_reference, `ds` their differences as the arithmetic has
them (float32 values, in float64), weights per model.
"""

import numpy as np

from tests.methods.merge_reference import Result, trimmed, weighted_sum


def certain(n):
    return np.zeros(n, bool)


def added(base, ds, weights, doubtful=None):
    """The base plus a weighted sum; weights are numbers or arrays over the elements."""
    merged = sum(w * d for w, d in zip(weights, ds, strict=True))
    size = sum(np.abs(w * d) for w, d in zip(weights, ds, strict=True))
    doubtful = certain(len(base)) if doubtful is None else doubtful
    return Result(base + merged, np.abs(base) + size, doubtful)


def arc_weights(a, b, t):
    """nuslerp's two weights from two vectors."""
    norms = [max(np.sqrt(v @ v), 1e-7) for v in (a, b)]
    cosine = (a @ b) / (norms[0] * norms[1])
    if abs(cosine) >= 1 - 2.0**-25:
        return 1 - t, t
    angle = np.arccos(cosine)
    return np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)


def grouped_arcs(a, b, t, groups):
    """Weights over the elements where each group of them has an arc of its own."""
    first, second = np.empty(len(a)), np.empty(len(a))
    for group in np.unique(groups):
        own = groups == group
        first[own], second[own] = arc_weights(a[own], b[own], t)
    return first, second


def nuslerp_share(weights):
    total = sum(weights)
    return 0.5 if abs(total) < 1e-6 else weights[1] / total


def direction_mean(vectors, weights, eps):
    """multislerp's weights."""
    if len(vectors) == 1:
        return [1.0]
    norms = [np.sqrt(v @ v) for v in vectors]
    mean = sum(w * v / (n + eps) for w, v, n in zip(weights, vectors, norms, strict=True))
    length = np.sqrt(mean @ mean)
    if length < eps or length == 0:
        return list(weights)
    total = sum(w * n for w, n in zip(weights, norms, strict=True))
    return [
        np.cos(eps) * total / length * w / (n + eps) for w, n in zip(weights, norms, strict=True)
    ]


def karcher(vectors, steps, tolerance):
    """The mean itself, from the vectors: no dot products but those of the formula."""
    if len(vectors) == 1:
        return vectors[0]
    norms = [np.sqrt(v @ v) for v in vectors]
    units = [v / n for v, n in zip(vectors, norms, strict=True) if n > tolerance]
    if not units:
        return np.zeros_like(vectors[0])
    point = sum(units) / len(units)
    length = np.sqrt(point @ point)
    point = units[0] if length < tolerance else point / length
    for _ in range(steps):
        tangent = np.zeros_like(point)
        for unit in units:
            cosine = np.clip(unit @ point, -1, 1)
            angle = np.arccos(cosine)
            if angle > 1e-9:
                tangent += (unit - cosine * point) * angle / np.sin(angle) / len(units)
        length = np.sqrt(tangent @ tangent)
        if length < tolerance:
            break
        point = np.cos(length) * point + np.sin(length) * tangent / length
        point /= np.sqrt(point @ point)
    return point * sum(norms) / len(norms)


def stock_share(ds):
    """Model Stock's t."""
    count, cosines = len(ds), []
    for i in range(count):
        for j in range(i + 1, count):
            norms = np.sqrt(ds[i] @ ds[i]) * np.sqrt(ds[j] @ ds[j])
            cosines.append(ds[i] @ ds[j] / max(norms, 1e-6))
    mean = sum(cosines) / len(cosines)
    divisor = 1 + (count - 1) * mean
    return 0.0 if abs(divisor) < 1e-6 else count * mean / divisor


def band(d, density, gamma):
    """What breadcrumbs keeps of d, ties with the ends included."""
    size = np.abs(d.astype(np.float32))
    n = len(d)
    kept = int(density * n)
    if density >= 1 or n == 0:
        return d
    if kept <= 0:
        return np.zeros(n)
    dropped = min(int(gamma * n), n - kept)
    falling = np.sort(size)[::-1]
    low, high = falling[dropped + kept - 1], falling[dropped]
    return np.where(size <= high, trimmed(d, low), 0)


def nearswap(base, d, t):
    share = np.minimum(1, t / np.maximum(np.abs(d), 1e-6))
    return added(base, [d], [share])


def ram(base, ds, epsilon, plus=None):
    """plus: (r, alpha) for ramplus_tl."""
    active = np.array([np.abs(d) > np.float32(epsilon) for d in ds])
    count = active.sum(0)
    weights = []
    for own in active:
        factor = 1.0
        alone, shared = (own & (count == 1)).sum(), (own & (count > 1)).sum()
        if plus is not None and alone:
            factor += plus[0] * min(plus[1], shared / alone)
        weights.append(np.where(own, np.where(count == 1, factor, 1 / np.maximum(count, 1)), 0))
    return added(base, ds, weights)


def sce(base, ds, topk):
    ds = np.array(ds)
    count, n = ds.shape
    if topk < 1:
        spread = ds.var(0).astype(np.float32)
        kept = int(topk * np.count_nonzero(spread))
        low = np.sort(spread)[n - kept] if kept > 0 else np.inf
        ds = np.where(spread >= low, ds, 0)
    energies = (ds**2).mean(1) if n else np.zeros(count)
    total = energies.sum()
    weights = energies / total if total > 1e-6 else np.full(count, 1 / count)
    vote = ds.sum(0)
    doubtful = (vote != 0) & (np.abs(vote) <= (count + 4) * 2.0**-24 * np.abs(ds).sum(0))
    sign = np.where(vote >= 0, 1, -1)
    agree = np.where((np.sign(ds) == sign) & (weights[:, None] > 0), weights[:, None], 0)
    divisor = agree.sum(0)
    share = agree / np.where(divisor == 0, 1, divisor)
    return added(base, ds, share, doubtful)


def della_chances(d, density, epsilon, row):
    """The chance of each element to stay: by its rank in its row, ties alike."""
    if density >= 1 or density <= 0:
        return np.full(len(d), float(density >= 1))
    chances = []
    for own in np.abs(d.astype(np.float32)).reshape(-1, row):
        below = (own[None, :] < own[:, None]).sum(1)
        equal = (own[None, :] == own[:, None]).sum(1)
        rank = below + (equal - 1) / 2
        middle = np.full(row, density)
        by_rank = (density - epsilon) + 2 * epsilon * rank / max(row - 1, 1)
        chances.append(middle if row == 1 else by_rank)
    return np.concatenate(chances) if chances else np.zeros(0)


def importance(base, x, d, row):
    """|d| times the divergence of its row's softmax from the base's, in float32."""
    if not len(d):
        return d.astype(np.float32)
    b, x = base.reshape(-1, row), x.reshape(-1, row)
    logs = []
    for values in (x, b):
        values = values - values.max(1, keepdims=True)
        logs.append(values - np.log(np.exp(values).sum(1, keepdims=True)))
    divergence = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(1, keepdims=True)
    divergence = np.maximum(divergence, 0)
    return (np.abs(d.reshape(-1, row)) * divergence).reshape(-1).astype(np.float32)


def fusion_threshold(values):
    """The median plus 1.5 times the range between the quartiles, none of them interpolated."""
    rising = np.sort(values).astype(np.float64)
    low, median, high = (rising[int(q * (len(rising) - 1))] for q in (0.25, 0.5, 0.75))
    return median + 1.5 * (high - low)


def fusion(base, x, d, row):
    if not len(d):
        return added(base, [d], [1.0])
    values = importance(base, x, d, row)
    low = fusion_threshold(values)
    doubtful = (np.abs(values - low) <= 1e-6 * low) & (low > 0)
    return added(base, [d], [values >= low], doubtful & (d != 0))


def by_weight(base, terms, weights):
    return weighted_sum(base, terms, weights, False)
