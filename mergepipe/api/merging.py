"""Merging in a repository: execute plans, explain and replay merges, read single tensors."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mergepipe.api.asked import Asked, of_message
from mergepipe.api.hooking import ask_before_merge, tell_after_merge
from mergepipe.api.opened import OpenRepository
from mergepipe.api.planning import Planning
from mergepipe.api.sharing import shared_store
from mergepipe.errors import (
    MergeInputError,
    MissingObject,
    RevisionNotFound,
    UsageError,
)
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.history import first_parents
from mergepipe.repository.hooks import PRE_MERGE
from mergepipe.repository.refnames import branch_ref
from mergepipe.repository.waiting import carried_out

if TYPE_CHECKING:
    # Merging brings in numpy and compiled kernels; `mp log` must not wait for them.

    from mergepipe.api.planning import Planned
    from mergepipe.api.sweeping import BudgetSweep
    from mergepipe.engine.engine import Engine
    from mergepipe.engine.replay import Replay
    from mergepipe.engine.result import MergeResult
    from mergepipe.objects.merging import Plan
    from mergepipe.plans.explain import Explanation, Pricing
    from mergepipe.plans.profile_views import Cited, Pair


_LONGEST_WAY_BACK = 1000


class Merging:
    """The merging side of a repository."""

    def __init__(self, opened: OpenRepository, planning: Planning) -> None:
        self._repo = opened
        self._planning = planning

    def engine(self, *, device: str = "cpu", host: str = "") -> "Engine":
        """An engine with this repository's settings."""
        from mergepipe.engine.encoding import OutputEncoder
        from mergepipe.engine.engine import Engine
        from mergepipe.executors.threads import ThreadExecutor

        # Nobody asked for several processes on one accelerator: each takes its memory.
        alone = device != "cpu" and not self._repo.workers.hands_out
        return Engine(
            storage=self._repo.storage,
            transactions=self._repo.transactions,
            executor=ThreadExecutor(self._repo.threads) if alone else self._repo.executor,
            encoder=OutputEncoder(self._repo.config.store.codec, self._repo.config.store.max_chain),
            device=device,
            host=host,
            cache_bytes=self._repo.config.merge.cache,
            place=self._repo.place,
            shared=partial(shared_store, self._repo),
            made=self._repo.blocks.made,
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
        verify: bool = True,
        progress: Progress = SILENT,
    ) -> "MergeResult":
        """As `Repository.merge` says."""
        from mergepipe.engine.transactions import MergeRequest

        loaded = self._planning.load_plan(plan)
        base, experts = self.input_commits(loaded)
        asked = self._planning.asked(plan)
        if verify:
            self._ask(plan, loaded, asked, branch, message)
        request = MergeRequest(
            base=base,
            experts=experts,
            branch=None if branch is None else branch_ref(branch),
            message=message,
            import_bytes=import_bytes,
            names=tuple(names) or self.model_names(plan, loaded),
            allow_nonfinite=allow_nonfinite,
            trailer=asked.trailer,
        )
        engine = self.engine(device=device, host=host)
        result = engine.execute(loaded, request, reuse=reuse, progress=progress)
        carried_out(self._repo.local, object_id(encode(loaded)))
        self._repo.let_go(each.profile for each in loaded.profiles)
        hook = tell_after_merge(self._repo.hooks, result)
        return replace(result, left_out=self._planning.left_out(plan), hook=hook)

    def _ask(
        self, planned: "Planned", plan: "Plan", asked: Asked, branch: str | None, message: str
    ) -> None:
        """Let pre-merge look at the plan, which is stored then: `mp explain` tells of it."""
        hooks = self._repo.hooks
        if not hooks.has(PRE_MERGE):
            return
        base, experts = self.input_commits(plan)
        names = dict(zip(plan.models, self.model_names(planned, plan), strict=True))
        inputs = [
            ("expert", commit, names[plan.models[place]])
            for place, commit in zip(plan.experts, experts, strict=True)
        ]
        if base is not None and plan.base is not None:
            inputs.insert(0, ("base", base, names[plan.base]))
        ref = branch_ref(branch) if branch is not None else self._repo.refs.head().branch or ""
        identity = self._planning.store_plan(planned, waits=False)
        ask_before_merge(hooks, plan, identity, asked, inputs, ref, message)

    def result_of(self, plan: ObjectId, branch: str | None = None) -> ObjectId | None:
        """The tip of a branch (None: HEAD) if it holds the result of this very plan, else None.

        A plan names its inputs by content, so a merge of it makes the same again.
        """
        tip = self._tip(branch)
        return tip if tip is not None and self._plan_of(tip) == plan else None

    def taken_back(self, plan: ObjectId, branch: str | None = None) -> ObjectId | None:
        """The tip of a branch if it went back to before the result of this very plan, else None.

        As after `mp rollback`: the tip holds the model of an earlier commit of its line, and what
        lies between was taken back.
        """
        tip = self._tip(branch)
        if tip is None:
            return None
        line = islice(first_parents(self._repo.objects, tip), 1, _LONGEST_WAY_BACK)
        between: list[ObjectId] = []
        with suppress(MissingObject):
            for identity, commit in line:
                if commit.snapshot == self._repo.objects.commit(tip).snapshot:
                    return tip if any(self._plan_of(each) == plan for each in between) else None
                between.append(identity)
        return None

    def _tip(self, branch: str | None) -> ObjectId | None:
        if branch is None:
            return self._repo.refs.head().commit
        return self._repo.refs.read(branch_ref(branch))

    def _plan_of(self, commit: ObjectId) -> ObjectId | None:
        """The plan that a merge carried out, as far as its manifest is here."""
        from mergepipe.objects.merging import Manifest

        manifest = self._repo.objects.commit(commit).manifest
        if manifest is None or not self._repo.objects.has(manifest):
            return None
        return self._repo.objects.load(manifest, Manifest).plan

    def explain(
        self, what: str, tensor: str | None = None
    ) -> tuple["Explanation", "Plan", ObjectId | None]:
        """As `Repository.explain` says."""
        plan, manifest = self.find(what)
        return self.explain_plan(plan, tensor), plan, manifest

    def find(self, what: str) -> tuple["Plan", ObjectId | None]:
        """The plan behind a merge's commit, with the manifest's id; or the plan of this id.

        Raises RevisionNotFound, MergeInputError for a commit that is no merge.
        """
        from mergepipe.objects.merging import Manifest

        try:
            manifest = self._manifest_of(what)
            return self._planning.load_plan(
                self._repo.objects.load(manifest, Manifest).plan
            ), manifest
        except RevisionNotFound as error:
            try:
                return self._planning.load_plan(what), None
            except RevisionNotFound:
                raise error from None  # it says more about names

    def asked_of(self, what: str, manifest: ObjectId | None, plan: ObjectId) -> Asked:
        """What a merge (with its manifest), or a stored plan, was asked for with."""
        if manifest is None:
            return self._planning.asked(plan)
        return of_message(self._repo.merge_of(what)[0].message)

    def explain_plan(self, plan: "Plan", tensor: str | None = None) -> "Explanation":
        """What a plan reads and keeps, from the profiles that it names or that are known."""
        from mergepipe.plans.explain import explain

        return explain(self.pricing(plan), tensor)

    def pricing(self, plan: "Plan") -> "Pricing":
        """What tells the costs of a plan: explanations and curves made of one look things up once.

        Raises MissingObject where a model of the plan is not here.
        """
        from mergepipe.plans.explain import Pricing
        from mergepipe.plans.models import require_models

        objects = self._repo.objects
        require_models(plan, objects)
        return Pricing.of(plan, objects, self._planning.catalog, self._profiles_of(plan))

    def sweep(self, planned: "Planned", shares: Sequence[float] | None = None) -> "BudgetSweep":
        """What budgets of these shares would keep (`Repository.sweep`)."""
        from mergepipe.api.sweeping import SHARES, BudgetSweep, SweepPoint, checked_shares, percent
        from mergepipe.planner.curve import energy_curve

        rising = checked_shares(SHARES if shares is None else shares)
        curve = energy_curve(self.pricing(self._planning.load_plan(planned)), rising)
        if not curve:
            raise MergeInputError(
                "what budgets keep is not known: no expert of this merge has a profile",
                "mp analyze REV makes one; methods that copy tensors read all of them anyway",
            )
        return BudgetSweep(
            tuple(
                SweepPoint(percent(share), bought.read_bytes, bought.energy_kept)
                for share, bought in zip(rising, curve, strict=True)
            )
        )

    def _profiles_of(self, plan: "Plan") -> "dict[Pair, Cited]":
        from mergepipe.plans.profile_views import profiled_pairs

        catalog = self._planning.catalog
        profiles: dict[Pair, Cited] = {
            (profile.model, profile.base): (profile.profile, catalog.profiles.load(profile.profile))
            for profile in plan.profiles
            if self._repo.objects.has(profile.profile)  # a release leaves them out
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
        """As `Repository.analyze` says."""
        commit = self._repo.model_of(revision)[1]
        under = (
            self._repo.resolve(base) if base is not None else commit.trained_from or commit.leans_on
        )
        if under is None:
            raise UsageError(
                f"nobody said what {revision} was trained from, and it leans on nothing",
                "name a model with --base",
            )
        self.layer(revision, base, progress)
        lower = self._repo.objects.commit(under).snapshot
        known = self._repo.profiles().find(commit.snapshot, lower)
        if known is not None:
            self._repo.hold(known)
            if self._repo.objects.has(known):
                return known
        self._repo.model_at(under, base or "")
        return self._planning.make_profile(commit.snapshot, lower, progress, store=True)[0]

    def layer(self, revision: str, base: str | None = None, progress: Progress = SILENT) -> int:
        """Let budgets read a model coarsely over `base`, or what it was trained from.

        How many blocks were stored once more for it; those that can be read so already are not.
        """
        from mergepipe.api.layering import store_coarse_layers

        commit = self._repo.model_of(revision)[1]
        under = commit.trained_from if base is None else self._repo.resolve(base)
        if under is None:
            return 0
        lower = self._repo.model_at(under, base or "").snapshot
        return store_coarse_layers(self._repo, commit.snapshot, lower, progress)

    def model_names(self, planned: "Planned", plan: "Plan") -> tuple[str, ...]:
        """What the models of a plan are called: as they were named for it, else by their refs."""
        from mergepipe.planner.build import PlannedMerge

        if isinstance(planned, PlannedMerge):
            return tuple(model.label for model in planned.merge.models)
        held = self._planning.holders(plan.models)
        return tuple(
            held[model].name if model in held else model.hex()[:12] for model in plan.models
        )

    def _manifest_of(self, revision: str) -> ObjectId:
        _, manifest = self._repo.merge_of(revision)
        if manifest is None:
            raise MergeInputError(
                f"{revision} is no merge", "mp log shows which commits have a manifest"
            )
        return manifest

    def input_commits(self, plan: "Plan") -> tuple[ObjectId | None, tuple[ObjectId, ...]]:
        """Commits that hold a plan's inputs: at the tips of refs, else anywhere in history.

        Raises MissingObject for an input that no branch, tag or import reaches.
        """
        experts = [plan.models[place] for place in plan.experts]
        wanted = [*experts, *([] if plan.base is None else [plan.base])]
        held = self._planning.holders(wanted)
        for snapshot in wanted:
            if snapshot not in held:
                raise MissingObject(
                    f"no branch, tag or import reaches the input {snapshot.hex()[:12]}",
                    "commit or fetch that model again; its snapshot id will be the same",
                )
        commits = tuple(held[snapshot].commit for snapshot in experts)
        return None if plan.base is None else held[plan.base].commit, commits
