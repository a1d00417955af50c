"""Which statistics a model's tensor has against the base's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from mergepipe.catalog.view import TensorView
from mergepipe.ids import ObjectId
from mergepipe.methods.protocol import Need
from mergepipe.methods.statistics import from_counts
from mergepipe.objects.merging import LinePlan, PlanInput, Profile, TermKind

# A profile with its id, or None: then blocks are read exactly.
Cited: TypeAlias = tuple[ObjectId, Profile] | None
# A model and the one it is compared with, by their places among a merge's models.
Pair: TypeAlias = tuple[int, int]
Profiles: TypeAlias = Mapping[Pair, Cited]


@dataclass(frozen=True)
class ProfileTable:
    """The tensors of every profile, by the models and tensors they compare."""

    by_pair: Mapping[Pair, Mapping[tuple[ObjectId, ObjectId], TensorView]]

    @classmethod
    def of(cls, profiles: Profiles) -> Self:
        """From the profiles by pair of models."""
        return cls(
            {
                pair: {
                    (tensor.tensor, tensor.base): TensorView(tensor) for tensor in cited[1].tensors
                }
                for pair, cited in profiles.items()
                if cited is not None
            }
        )

    def views(self, line: LinePlan, blocks: int) -> tuple[TensorView | None, ...]:
        """Per input of a line, the statistics of its tensor against the base's; None: unknown."""
        return tuple(self._view(line.base, term, blocks) for term in line.inputs)

    def _view(self, base: PlanInput | None, one: PlanInput, blocks: int) -> TensorView | None:
        if base is None or base.stored is None or base.factors is not None:
            return None
        if one.stored is None or one.factors is not None or one.kind is not TermKind.FULL:
            return None
        known = self.by_pair.get((one.model, base.model), {})
        view = known.get((one.stored, base.stored))
        return view if view is not None and view.blocks == blocks else None


def profiled_pairs(lines: Iterable[LinePlan]) -> list[Pair]:
    """The pairs of models of which a profile can tell something of these lines, in order."""
    return sorted(
        {
            (term.model, line.base.model)
            for line in lines
            if line.base is not None and line.base.stored is not None and line.copied is None
            for term in line.inputs
            if term.stored is not None
            and term.kind is TermKind.FULL
            and term.factors is None
            and term.model != line.base.model
        }
    )


def counted(view: TensorView, need: Need, elements: int) -> Sequence[float] | None:
    """The value of a need from a profile's exact counts; None where it has none."""
    magnitudes, counts = view.distinct
    if not len(counts) and (np.isnan(view.energies).any() or view.changed.any()):
        return None
    return from_counts(need, magnitudes, counts, elements)
