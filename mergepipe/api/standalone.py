"""`Planner` and `Engine` as they stand alone (docs/python.md, "The parts").

Here is where the words of the first interface live: `base_model`, `operator`, `budget_mb`,
`transaction_manager`. The parts themselves say base, method, budget and transactions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from mergepipe.api.plan_request import without_underscores
from mergepipe.engine.engine import Engine as PlanEngine
from mergepipe.errors import UsageError
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge
from mergepipe.planner.planner import Catalog
from mergepipe.planner.planner import Planner as MergePlanner
from mergepipe.progress import SILENT, Progress
from mergepipe.sizes import MIB

if TYPE_CHECKING:
    from mergepipe.dtypes import DType
    from mergepipe.engine.finite import NonFiniteValues
    from mergepipe.engine.result import Costs, MergeResult
    from mergepipe.engine.transactions import MergeRequest, Transactions
    from mergepipe.ids import ObjectId
    from mergepipe.objects.merging import Manifest, Plan
    from mergepipe.packs.storage import Storage
    from mergepipe.planner.recipe import Setting
    from mergepipe.plans.left_out import LeftOut


_TOLD = (
    "commit", "snapshot", "manifest", "manifest_id", "plan_id", "branch", "costs", "nonfinite",
    "left_out", "hook", "expert_bytes_read", "base_bytes_read", "import_bytes", "written_bytes",
    "seconds",
)  # fmt: skip


class Planner:
    """Plans merges of the revisions that a catalog knows (`Repository.catalog`)."""

    def __init__(self, catalog: Catalog) -> None:
        self._planner = MergePlanner(catalog)

    def plan(
        self,
        base_model: str | None = None,
        experts: Sequence[str] = (),
        operator: str = "ties",
        budget_mb: float | None = None,
        *,
        budget: str | float | Budget | None = None,
        weights: Sequence[float] | None = None,
        densities: Sequence[float] | None = None,
        dtype: "DType | None" = None,
        seed: int = 0,
        allow_missing: bool = False,
        **parameters: "Setting",
    ) -> PlannedMerge:
        """The plan of merging revisions.

        base_model  a revision; without one, what all experts were trained from, as somebody said
        operator    a merge method, in any case
        budget_mb   expert bytes to read at most, in MiB; or `budget`, as text (`Budget.parse`)
        weights, densities  one per expert; one for all: among `parameters`

        Raises RevisionNotFound, UsageError, MergeInputError, OverBudget.
        """
        if budget_mb is not None:
            if budget is not None:
                raise UsageError("both budget_mb and budget are given", "give one of them")
            budget = Budget(size_bytes=int(budget_mb * MIB))
        return self._planner.plan(
            base_model,
            experts,
            operator,
            budget=budget,
            weights=weights,
            densities=densities,
            dtype=dtype,
            seed=seed,
            allow_missing=allow_missing,
            **without_underscores(parameters),
        )


class Engine:
    """Executes plans over one store, and publishes them (`Repository.transactions`)."""

    def __init__(
        self, storage: "Storage", transaction_manager: "Transactions", device: str = "cpu"
    ) -> None:
        self._engine = PlanEngine(storage, transaction_manager, device=device)

    def execute(
        self,
        plan: "Plan | PlannedMerge",
        request: "MergeRequest | None" = None,
        *,
        reuse: bool = True,
        progress: Progress = SILENT,
    ) -> "Executed":
        """Merge, and publish the result on the branch asked for; raises as `engine.Engine` does."""
        plan = plan.plan if isinstance(plan, PlannedMerge) else plan
        return Executed(self._engine.execute(plan, request, reuse=reuse, progress=progress))


class Executed(tuple["ObjectId", "Manifest"]):
    """`snapshot_id, manifest` of a merge, with all that `MergeResult` tells of it.

    A tuple, because only of one do type checkers know what each name is given.
    """

    commit: "ObjectId"
    snapshot: "ObjectId"
    manifest: "Manifest"
    manifest_id: "ObjectId"
    plan_id: "ObjectId"
    branch: str | None
    costs: "Costs"
    nonfinite: "NonFiniteValues"
    left_out: "tuple[LeftOut, ...]"
    hook: str | None
    expert_bytes_read: int
    base_bytes_read: int
    import_bytes: int
    written_bytes: int
    seconds: float
    _result: "MergeResult"

    def __new__(cls, result: "MergeResult") -> Self:
        """Of what the engine published."""
        pair = super().__new__(cls, (result.snapshot, result.manifest))
        for name in _TOLD:
            setattr(pair, name, getattr(result, name))
        pair._result = result
        return pair

    def __repr__(self) -> str:
        return repr(self._result)

    def _repr_html_(self) -> str:
        return self._result._repr_html_()
