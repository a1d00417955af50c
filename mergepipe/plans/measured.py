"""Statistics that no profile holds: how the planner asks for them, and what the engine answers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from mergepipe.methods.protocol import Need
from mergepipe.objects.merging import LinePlan, PlanProfile


class Measured(Struct, frozen=True):
    """Statistics that were measured from blocks, and what reading those took."""

    values: Mapping[Need, Sequence[float]]
    expert_bytes: int = 0
    base_bytes: int = 0


class Measure(Protocol):
    """Measures statistics of one tensor before its plan is frozen (the engine does).

    `lines` are those of the plan so far; the last one is what the needs are about: a draft with the
    depth to read each block to, and numbers of which only coarse scales matter. Reads are metered:
    every block of the inputs that `needs` are about, to its depth, once per pass, and likewise what
    the lines that make such inputs take in.
    """

    def __call__(
        self,
        lines: Sequence[LinePlan],
        profiles: Sequence[PlanProfile],
        needs: Sequence[Need],
        seed: int,
        /,
    ) -> Measured:
        """The value of every need."""
        ...
