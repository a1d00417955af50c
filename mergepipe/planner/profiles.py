"""Which statistics an expert's tensor has against the base's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from mergepipe.catalog.view import TensorView
from mergepipe.ids import ObjectId
from mergepipe.methods.trim import Trim, from_counts
from mergepipe.objects.merging import Profile

# An expert's profile with its id, or None: then its blocks are read exactly.
Cited: TypeAlias = tuple[ObjectId, Profile] | None


@dataclass(frozen=True)
class ProfileTable:
    """The tensors of every expert's profile, by what they compare."""

    by_pair: tuple[dict[tuple[ObjectId, ObjectId], TensorView], ...]

    @classmethod
    def of(cls, profiles: Sequence[Cited]) -> Self:
        """From one profile, or None, per expert."""
        return cls(
            tuple(
                {}
                if cited is None
                else {(one.tensor, one.base): TensorView(one) for one in cited[1].tensors}
                for cited in profiles
            )
        )

    def views(
        self, base: ObjectId | None, experts: Sequence[ObjectId | None], blocks: int
    ) -> list[TensorView | None]:
        """Per expert, the statistics of its tensor against the base's; None where unknown."""
        found: list[TensorView | None] = []
        for known, expert in zip(self.by_pair, experts, strict=True):
            view = None if base is None or expert is None else known.get((expert, base))
            found.append(view if view is not None and view.blocks == blocks else None)
        return found


def trim_of(view: TensorView, density: float, elements: int) -> Trim | None:
    """A trim from a profile's exact counts; None where it has none."""
    magnitudes, counts = view.distinct
    if not len(counts) and (np.isnan(view.energies).any() or view.changed.any()):
        return None
    return from_counts(magnitudes, counts, density, elements)
