"""How much one expert's changes may count in the choice of what to read, beside the others'.

By gain per byte alone, an expert with a swapped, scaled or broken layer takes the budget: its
changes are the largest, and the energy that a plan keeps even rises. Two rules stand against that.
They are about the choice only: what is done with what was read stays what the method says.

1. An expert's changes to a tensor count as at most `LIKENESS` times as large as the median of what
   the other experts change there.
2. An expert that has more than `EXCESS` of its energy beyond that is an outlier: it gets an even
   share of the budget, and more only of what the others have no use for.
"""

from collections.abc import Mapping, Sequence

# In norms. Fine-tunes of one base differ by less than this nearly everywhere; a swapped layer is
# 20 to 100 times what its siblings change (docs/design/planning.md).
LIKENESS = 2.0
EXCESS = 0.5


def tempers(energies: Mapping[int, float]) -> dict[int, float]:
    """What gains of each expert are multiplied by, at most 1, given the energies of its changes.

    energies  of the experts that change one tensor, without their weights: what somebody gave a
              large weight, on purpose, is no outlier
    """
    ratios = {}
    for expert, energy in energies.items():
        others = [other for model, other in energies.items() if model != expert and other > 0]
        most = LIKENESS**2 * _median(others) if others else energy
        ratios[expert] = most / energy if energy > most else 1.0
    return ratios


def _median(values: list[float]) -> float:
    """As numpy has it, which takes fifty times as long for as few as these."""
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def outliers(tensors: Sequence[Mapping[int, float]]) -> frozenset[int]:
    """The experts that rule 2 is about, by the energies of all tensors."""
    whole: dict[int, float] = {}
    within: dict[int, float] = {}
    for energies in tensors:
        for expert, temper in tempers(energies).items():
            whole[expert] = whole.get(expert, 0.0) + energies[expert]
            within[expert] = within.get(expert, 0.0) + energies[expert] * temper
    return frozenset(
        expert for expert, energy in whole.items() if energy - within[expert] > EXCESS * energy
    )
