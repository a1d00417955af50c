"""Merging in a repository: execute plans, explain and replay merges, read single tensors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mergepipe.api.planning import Planning
from mergepipe.errors import (
    MergeInputError,
    MissingObject,
    RevisionNotFound,
    UsageError,
)
from mergepipe.ids import ObjectId
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.refnames import branch_ref

if TYPE_CHECKING:
    # Merging brings in numpy and compiled kernels; `mp log` must not wait for them.

    from mergepipe.api.planning import Planned
    from mergepipe.engine.engine import Engine
    from mergepipe.engine.replay import Replay
    from mergepipe.engine.result import MergeResult
    from mergepipe.objects.merging import Plan
    from mergepipe.planner.curve import Bought
    from mergepipe.planner.explain import Explanation
    from mergepipe.planner.profiles import Cited, Pair


class Merging(Planning):
    """The merging side of a repository."""

    def engine(self, *, device: str = "cpu", host: str = "") -> "Engine":
        """An engine with this repository's settings."""
        from mergepipe.engine.encoding import OutputEncoder
        from mergepipe.engine.engine import Engine
        from mergepipe.engine.executors import ThreadExecutor

        return Engine(
            self.storage,
            self.transactions,
            ThreadExecutor(self.config.core.threads),
            OutputEncoder(self.config.store.codec, self.config.store.max_chain),
            device,
            host=host,
        )

    def merge(
        self,
        plan: "Planned",
        *,
        branch: str | None = None,
        message: str = "",
        device: str = "cpu",
        host: str = "",
        reuse: bool = True,
        import_bytes: int = 0,
        allow_nonfinite: bool = False,
        names: Sequence[str] = (),
        progress: Progress = SILENT,
    ) -> "MergeResult":
        """Execute a plan and commit its result on a branch (None: the current one).

        Values that are not finite, in the inputs or in the result, are refused (MergeInputError)
        unless `allow_nonfinite`; the result names them. `names` are what messages call the plan's
        models. Raises MergeInputError, Corruption, MissingObject, NoSpace, Locked; the repository
        is then as it was.
        """
        from mergepipe.engine.transactions import MergeRequest

        found = self.load_plan(plan)
        base, experts = self._input_commits(found)
        request = MergeRequest(
            base,
            experts,
            None if branch is None else branch_ref(branch),
            message,
            import_bytes=import_bytes,
            names=tuple(names) or self._model_names(plan, found),
            allow_nonfinite=allow_nonfinite,
        )
        engine = self.engine(device=device, host=host)
        result = engine.execute(found, request, reuse=reuse, progress=progress)
        return replace(result, left_out=self.left_out(plan))

    def result_of(self, plan: ObjectId, branch: str | None = None) -> ObjectId | None:
        """The tip of a branch (None: HEAD) if it holds the result of this very plan, else None.

        A plan names its inputs by content, so a merge of it makes the same again.
        """
        from mergepipe.objects.merging import Manifest

        tip = self.refs.head().commit if branch is None else self.refs.read(branch_ref(branch))
        manifest = None if tip is None else self.objects.commit(tip).manifest
        if manifest is None or self.objects.load(manifest, Manifest).plan != plan:
            return None
        return tip

    def explain(
        self, what: str, tensor: str | None = None
    ) -> tuple["Explanation", "Plan", ObjectId | None]:
        """Why a merge is what it is: by revision of its commit, or by plan id.

        Returns the explanation, the plan, and the manifest's id where there is one.
        """
        from mergepipe.objects.merging import Manifest

        manifest, plan = None, None
        try:
            manifest = self._manifest_of(what)
            plan = self.load_plan(self.objects.load(manifest, Manifest).plan)
        except RevisionNotFound as error:
            try:
                plan = self.load_plan(what)
            except RevisionNotFound:
                raise error from None  # it says more about names
        return self.explain_plan(plan, tensor), plan, manifest

    def explain_plan(self, plan: "Plan", tensor: str | None = None) -> "Explanation":
        """What a plan reads and keeps, from the profiles that it names or that are known."""
        from mergepipe.planner.explain import explain

        profiles = self._profiles_of(plan)
        return explain(plan, self.objects, self.catalog.encodings, profiles, tensor)

    def energy_curve(self, plan: "Plan", shares: Sequence[float]) -> "list[Bought]":
        """The most energy that shares of the exact merge's expert bytes can keep, in order."""
        from mergepipe.planner.curve import energy_curve

        profiles = self._profiles_of(plan)
        return energy_curve(plan, self.objects, self.catalog.encodings, profiles, shares)

    def _profiles_of(self, plan: "Plan") -> "dict[Pair, Cited]":
        from mergepipe.planner.profiles import profiled_pairs

        catalog = self.catalog
        profiles: dict[Pair, Cited] = {
            (one.model, one.base): (one.profile, catalog.profiles.load(one.profile))
            for one in plan.profiles
        }
        for pair in profiled_pairs(plan.lines):
            # An exact plan needs no profile; who is asked what it does is glad of one.
            if pair not in profiles:
                profiles[pair] = catalog.known_profile(*(plan.models[place] for place in pair))
        return profiles

    def replay(self, revision: str, progress: Progress = SILENT) -> "Replay":
        """Run the merge behind a commit again and compare every id; nothing is written."""
        from mergepipe.engine.replay import replay

        return replay(self.engine(), self._manifest_of(revision), progress=progress)

    def analyze(
        self, revision: str, base: str | None = None, progress: Progress = SILENT
    ) -> ObjectId:
        """The profile of a revision against a base, made if it is not known.

        Without `base`: what the revision was trained from, or else what it leans on.
        """
        commit = self.objects.commit(self.resolve(revision))
        under = self.resolve(base) if base is not None else commit.trained_from or commit.leans_on
        if under is None:
            raise UsageError(
                f"nobody said what {revision} was trained from, and it leans on nothing",
                "name a model with --base",
            )
        lower = self.objects.commit(under).snapshot
        known = self.profiles().find(commit.snapshot, lower)
        if known is not None:
            return known
        return self._make_profile(commit.snapshot, lower, progress, store=True)[0]

    def _model_names(self, planned: "Planned", plan: "Plan") -> tuple[str, ...]:
        """What the models of a plan are called: as they were named for it, else by their refs."""
        from mergepipe.planner.build import PlannedMerge

        if isinstance(planned, PlannedMerge):
            return tuple(model.label for model in planned.merge.models)
        held = self.holders(plan.models)
        return tuple(
            held[model].name if model in held else model.hex()[:12] for model in plan.models
        )

    def _manifest_of(self, revision: str) -> ObjectId:
        _, commit = self.model_of(revision)
        if commit.manifest is None:
            raise MergeInputError(
                f"{revision} is no merge", "mp log shows which commits have a manifest"
            )
        return commit.manifest

    def _input_commits(self, plan: "Plan") -> tuple[ObjectId | None, tuple[ObjectId, ...]]:
        """Commits that hold a plan's inputs: at the tips of refs, else anywhere in history.

        Raises MissingObject for an input that no branch, tag or import reaches.
        """
        experts = [plan.models[place] for place in plan.experts]
        wanted = [*experts, *([] if plan.base is None else [plan.base])]
        held = self.holders(wanted)
        for snapshot in wanted:
            if snapshot not in held:
                raise MissingObject(
                    f"no branch, tag or import reaches the input {snapshot.hex()[:12]}",
                    "commit or fetch that model again; its snapshot id will be the same",
                )
        commits = tuple(held[snapshot].commit for snapshot in experts)
        return None if plan.base is None else held[plan.base].commit, commits
