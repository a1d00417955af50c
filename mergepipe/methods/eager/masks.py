"""Random masks in torch: the numbers of `randomness`, in int64 (torch has no unsigned shifts)."""

import torch

from mergepipe.methods.randomness import (
    FIRST_MULTIPLIER,
    KEEP_ALL,
    SECOND_MULTIPLIER,
    keep_limit,
    mask_keys,
)
from mergepipe.methods.terms import Unit

_WORD = 0xFFFFFFFF


def keep(unit: Unit, expert: int, device: str) -> torch.Tensor | None:
    """Which elements of the unit survive the expert's mask, bool (length,); None: all of them."""
    limit = keep_limit(unit.scalars.experts[expert].density)
    return None if limit == KEEP_ALL else numbers(unit, expert, device) < limit


def numbers(unit: Unit, expert: int, device: str) -> torch.Tensor:
    """The random numbers of the unit's elements, 0 to 2^32 - 1 in int64 (length,)."""
    first, second, third = mask_keys(unit.seed, unit.tensor_key, expert)
    index = torch.arange(unit.start, unit.start + unit.length, dtype=torch.int64, device=device)
    high = _mix((index >> 32) ^ third)
    return _mix(_mix((index & _WORD) ^ first) ^ second ^ high)


def _mix(x: torch.Tensor) -> torch.Tensor:
    # Products wrap around in int64; their low 32 bits are right all the same.
    x = x ^ (x >> 16)
    x = (x * FIRST_MULTIPLIER) & _WORD
    x = x ^ (x >> 15)
    x = (x * SECOND_MULTIPLIER) & _WORD
    return x ^ (x >> 16)
