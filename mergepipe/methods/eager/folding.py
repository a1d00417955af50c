"""Sums in float64 by folding: the same bits for any thread count, vector width and device."""

import torch


def fold(values: torch.Tensor) -> torch.Tensor:
    """The sum over the last dimension, in float64: one half is added to the other, to the end.

    torch's own sum runs in an order that depends on threads and vectors.
    """
    total = values.double()
    if not total.shape[-1]:
        return total.sum(-1)
    while (width := total.shape[-1]) > 1:
        half = (width + 1) // 2
        upper = total[..., half:]
        total = torch.cat((total[..., : width - half] + upper, total[..., width - half : half]), -1)
    return total.reshape(values.shape[:-1])
