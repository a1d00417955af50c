"""The divisors of plain sums, the same for both implementations."""

from mergepipe.methods.terms import Scalars

SMALLEST_WEIGHT_SUM = 1e-8


def plain_divisor(scalars: Scalars) -> float:
    """What a sum without an election is divided by: 1 if not normalised or nothing to divide by."""
    if scalars.divisor is not None:
        return scalars.divisor
    if not scalars.normalize:
        return 1.0
    total = sum(expert.weight for expert in scalars.experts)
    return 1.0 if abs(total) < SMALLEST_WEIGHT_SUM else total


def weight_sum(scalars: Scalars) -> float:
    """What a sum of weights themselves is divided by, in float64."""
    if scalars.divisor is not None:
        return scalars.divisor
    return sum(expert.weight for expert in scalars.experts) if scalars.normalize else 1.0
