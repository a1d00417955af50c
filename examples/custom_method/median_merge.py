"""A merge method of your own: the base plus the median of the experts' changes, element by element.

One expert that went astray in some weights does not move the result there.
"""

import torch

from mergepipe.methods.custom import elementwise_method
from mergepipe.methods.parameters import Parameter


@elementwise_method(
    "median",
    summary="the base plus the median of the deltas",
    parameters=(Parameter("pull", 1.0, "times the median", lowest=0.0),),
)
def MEDIAN(  # noqa: N802
    base: torch.Tensor, deltas: list[torch.Tensor], weights: list[float], values: dict[str, float]
) -> torch.Tensor:
    """What is added to the base; of an even number of experts, the mean of the middle two."""
    ordered = torch.stack([delta * weight for delta, weight in zip(deltas, weights, strict=True)])
    ordered = ordered.sort(dim=0).values
    middle = (ordered[(len(deltas) - 1) // 2] + ordered[len(deltas) // 2]) / 2
    return middle * values["pull"]
