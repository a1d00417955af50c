"""Weights that follow from dot products alone: norms and angles of whole tensors, in float64.

Plain Python floats in a fixed order: K is small, and a library's sums differ between CPUs.
"""

from collections.abc import Sequence
from math import acos, cos, sin, sqrt

Matrix = list[list[float]]
Vector = Sequence[float]

# As nuslerp has it in mergekit 0.1.5: the least norm, and how close to a line counts as one. There
# that is where the cosine rounds to 1 in float32.
SMALLEST_NORM = 1e-7
ALIGNED = 1.0 - 2.0**-25
# Within this of exactly opposite, an angle has no direction (float64 cosines resolve no finer).
_OPPOSITE = 1e-7


def matrix(values: Vector, count: int) -> Matrix:
    """The K x K matrix of a GRAM or DELTA_GRAM need."""
    return [list(values[row * count : (row + 1) * count]) for row in range(count)]


def norms(gram: Matrix) -> list[float]:
    """The length of each model."""
    return [sqrt(gram[i][i]) for i in range(len(gram))]


def arc(t: float, first: float, product: float, second: float) -> tuple[float, float]:
    """The weights of a and b at share t of the way, from a.a, a.b and b.b (nuslerp).

    On the line from a to b where they lie on one through 0.
    """
    lengths = max(sqrt(first), SMALLEST_NORM) * max(sqrt(second), SMALLEST_NORM)
    cosine = product / lengths
    if not abs(cosine) < ALIGNED:
        return 1.0 - t, t
    angle = acos(cosine)
    return sin(angle - angle * t) / sin(angle), sin(angle * t) / sin(angle)


def direction_mean(gram: Matrix, weights: Vector, eps: float) -> list[float]:
    """The weights that point to the weighted mean of directions, as long as the mean of lengths.

    With directions u_i = x_i / (|x_i| + eps), along m = sum w_i u_i: sum w_i |x_i| m / |m|; and
    sum w_i x_i where |m| < eps.
    """
    lengths = norms(gram)
    shares = [weight / (length + eps) for weight, length in zip(weights, lengths, strict=True)]
    norm = sqrt(max(0.0, _product(gram, shares, shares)))
    if norm < eps or norm == 0:
        return list(weights)
    total = sum(weight * length for weight, length in zip(weights, lengths, strict=True))
    # mergekit 0.1.5 goes on from m by its tangent sum, which is 0 and counts as eps long.
    factor = cos(eps) * total / norm
    return [factor * share for share in shares]


def karcher_mean(gram: Matrix, steps: int, tolerance: float) -> list[float]:
    """The weights of the point of the sphere nearest to all directions, of the models' mean length.

    Gradient descent (Karcher, CPAM 1977): from the normalised mean along the mean of logarithms,
    until that is shorter than `tolerance` or `steps` were taken. Models no longer than `tolerance`
    have no direction, but count in the mean length.
    """
    lengths = norms(gram)
    some = [i for i, length in enumerate(lengths) if length > tolerance]
    weights = [0.0] * len(gram)
    if not some:
        return weights
    cosines = [[gram[i][j] / lengths[i] / lengths[j] for j in some] for i in some]
    point = _start(cosines, tolerance)
    for _ in range(steps):
        tangent = _mean_logarithm(cosines, point)
        length = sqrt(max(0.0, _product(cosines, tangent, tangent)))
        if length < tolerance or length == 0:
            break
        ahead, aside = cos(length), sin(length) / length
        moved = [ahead * p + aside * q for p, q in zip(point, tangent, strict=True)]
        norm = sqrt(_product(cosines, moved, moved))
        point = [one / norm for one in moved]
    mean = sum(lengths) / len(lengths)
    for place, i in enumerate(some):
        weights[i] = mean * point[place] / lengths[i]
    return weights


def stock_share(gram: Matrix) -> float:
    """Model Stock's t = N c / (1 + (N - 1) c), c the mean cosine over all pairs of d.

    A product of norms counts as at least 1e-6, and t is 0 where the divisor is below 1e-6.
    """
    count, lengths = len(gram), norms(gram)
    total = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            total += gram[i][j] / max(lengths[i] * lengths[j], 1e-6)
    mean = total / (count * (count - 1) / 2)
    divisor = 1.0 + (count - 1) * mean
    return 0.0 if abs(divisor) < 1e-6 else count * mean / divisor


def _start(cosines: Matrix, tolerance: float) -> list[float]:
    """The normalised mean of the directions; the first one where they cancel out."""
    count = len(cosines)
    mean = [1.0 / count] * count
    norm = sqrt(max(0.0, _product(cosines, mean, mean)))
    if norm < tolerance or norm == 0:
        return [1.0] + [0.0] * (count - 1)
    return [one / norm for one in mean]


def _mean_logarithm(cosines: Matrix, point: Vector) -> list[float]:
    """The mean over the directions of how to get there from `point`, as weights of them."""
    count = len(cosines)
    tangent = [0.0] * count
    towards = 0.0
    for i in range(count):
        cosine = sum(c * p for c, p in zip(cosines[i], point, strict=True))
        cosine = min(1.0, max(-1.0, cosine))
        angle = acos(cosine)
        sine = sin(angle)
        if sine < _OPPOSITE and cosine < 0:
            continue
        factor = (angle / sine if sine > 0 else 1.0) / count
        tangent[i] += factor
        towards += factor * cosine
    return [one - towards * p for one, p in zip(tangent, point, strict=True)]


def _product(gram: Matrix, left: Vector, right: Vector) -> float:
    total = 0.0
    for row, one in zip(gram, left, strict=True):
        total += one * sum(value * other for value, other in zip(row, right, strict=True))
    return total
