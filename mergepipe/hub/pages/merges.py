"""A merge as its page shows it: of what, how deep each part was read, what was kept of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError
from mergepipe.hub.errors import HubError
from mergepipe.hub.files import Recent
from mergepipe.ids import ObjectId
from mergepipe.report.gathering import of_merge
from mergepipe.report.values import Report

if TYPE_CHECKING:
    from mergepipe.plans.cost_table import ExpertTotals

MOST_TENSORS = 100
_MERGES = 32


class MergedTensor(Struct, frozen=True):
    """A tensor that was computed. `energy_kept`: None where no profile tells."""

    name: str
    method: str
    bytes_full: int
    bytes_planned: int
    energy_kept: float | None
    depths: tuple[int, int, int, int]


class MergeView(Struct, frozen=True):
    """A merge. `tensors`: those of which least was kept, first; `more_tensors` are left out."""

    report: Report
    manifest: str
    seed: int
    experts: Sequence["ExpertTotals"]
    tensors: Sequence[MergedTensor]
    more_tensors: int
    taken_over: int


class Merges:
    """Merges by commit, the last ones from memory; names of inputs are as they were then."""

    def __init__(self) -> None:
        self._views: Recent[tuple[str, ObjectId], MergeView] = Recent(_MERGES)

    def of(self, repository: Repository, identity: ObjectId) -> MergeView:
        """The merge of a commit. Raises HubError (404) where it is none."""
        key = str(repository.directory), identity
        try:
            return self._views.get(key, lambda: _view(repository, identity.hex()))
        except MergeInputError as error:
            raise HubError(404, error.message) from error


def _view(repository: Repository, revision: str) -> MergeView:
    from mergepipe.plans.cost_table import totals

    report, explained, plan, manifest = of_merge(repository, revision)
    names = {model.snapshot: model.name for model in report.models}
    experts = [
        totals(explained.costs, place, names[plan.models[place].hex()]) for place in plan.experts
    ]
    tensors = []
    for tensor in explained.tensors:
        if tensor.kept:
            continue
        costs = [expert.cost for expert in tensor.experts]
        known = [cost for cost in costs if cost.energy is not None]
        energy = sum(cost.energy or 0.0 for cost in known)
        kept = sum(cost.energy_kept or 0.0 for cost in known)
        tensors.append(
            MergedTensor(
                tensor.name,
                tensor.method,
                tensor.cost.bytes_full,
                tensor.cost.bytes_planned,
                min(1.0, kept / energy) if energy else None,
                (
                    sum(cost.blocks_exact for cost in costs),
                    sum(cost.blocks_coarse for cost in costs),
                    sum(cost.blocks_omitted for cost in costs),
                    sum(cost.blocks_equal for cost in costs),
                ),
            )
        )
    tensors.sort(
        key=lambda each: (2.0 if each.energy_kept is None else each.energy_kept, each.name)
    )
    return MergeView(
        report,
        "" if manifest is None else manifest.hex(),
        explained.seed,
        experts,
        tensors[:MOST_TENSORS],
        len(tensors[MOST_TENSORS:]),
        sum(tensor.kept for tensor in explained.tensors),
    )
