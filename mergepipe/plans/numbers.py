"""A method's resolved numbers as a plan keeps them: every one, in the order of the format.

None is left out because it is a default: what a plan means stands in the plan. A number that
`methods.terms` gains is a new version of plans (docs/format-merge.md).
"""

from msgspec import structs

from mergepipe.errors import MergeInputError
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.names import quoted
from mergepipe.objects.merging import InputNumbers, LineNumbers, LinePlan


def stored_numbers(scalars: Scalars) -> tuple[LineNumbers, tuple[InputNumbers, ...]]:
    """The numbers of a line, and those of each of its inputs."""
    numbers = LineNumbers(
        elect=scalars.elect,
        normalize=scalars.normalize,
        scale=float(scalars.scale),
        extras=tuple(float(extra) for extra in scalars.extras),
    )
    # Floats even where somebody counted in whole numbers: MessagePack tells them apart.
    inputs = tuple(
        InputNumbers(
            weight=float(expert.weight),
            threshold=float(expert.threshold),
            coarse_scale=float(expert.coarse_scale),
            density=float(expert.density),
            rescale=float(expert.rescale),
            ceiling=float(expert.ceiling),
        )
        for expert in scalars.experts
    )
    return numbers, inputs


def scalars_of(line: LinePlan) -> Scalars:
    """The numbers of a planned line. Raises MergeInputError if it has none."""
    if line.numbers is None:
        raise MergeInputError(
            f"the plan has no numbers for {quoted(line.name)}", "make the plan again"
        )
    experts = tuple(ExpertScalars(**structs.asdict(numbers)) for numbers in line.input_numbers)
    return Scalars(experts, **structs.asdict(line.numbers))
