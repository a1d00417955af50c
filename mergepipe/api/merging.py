"""Merging in a repository: plan, merge, explain, replay; experts by revision or by path."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import (
    MergeInputError,
    MissingObject,
    RevisionNotFound,
    UsageError,
)
from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import history, layout, revisions
from mergepipe.repository.refnames import branch_ref

if TYPE_CHECKING:
    # Merging brings in numpy and compiled kernels; `mp log` must not wait for them.
    import torch

    from mergepipe.api.catalog import RepositoryCatalog
    from mergepipe.engine.engine import Engine
    from mergepipe.engine.replay import Replay
    from mergepipe.engine.result import MergeResult
    from mergepipe.engine.transactions import Transactions
    from mergepipe.objects.merging import Plan
    from mergepipe.planner.build import PlannedMerge
    from mergepipe.planner.explain import Explanation
    from mergepipe.planner.recipe import Setting

    Planned = PlannedMerge | Plan | ObjectId | str

Told = Callable[[str], None]
"""Takes a message for the user about something that is done on the way."""


def _say_nothing(message: str) -> None:
    """The default for messages."""


class Merging(OpenRepository):
    """The merging side of a repository."""

    def import_path(
        self, path: Path, *, base: str | None = None, progress: Progress = SILENT
    ) -> tuple[ObjectId, int]:
        """The commit that holds a checkpoint that is not on a branch, and the bytes read for it.

        It lies under refs/imports/, and is reused (0 bytes) while the files' sizes, mtimes and
        inodes stay the same. Raises what committing raises.
        """
        from mergepipe.checkpoints.imports import Fingerprints, import_ref
        from mergepipe.checkpoints.requests import CommitRequest
        from mergepipe.formats.tree import scan

        sources = scan(path)
        fingerprints = Fingerprints(self.storage)
        known = fingerprints.find(path, sources)
        if known is not None and self.objects.has(known):
            return known, 0
        leaning = None if base is None else self.resolve(base)
        request = CommitRequest(f"Import {path.name}", self.signature(), import_ref(path), leaning)
        with self.writing():
            result = self.committer().commit(sources, request, progress)
        fingerprints.remember(path, sources, result.commit)
        return result.commit, result.raw_bytes

    @property
    def catalog(self) -> "RepositoryCatalog":
        """What a `Planner` needs to know of this repository."""
        return self.catalog_with()

    @property
    def transactions(self) -> "Transactions":
        """How an `Engine` writes and publishes here."""
        from mergepipe.engine.transactions import Transactions

        return Transactions(
            self.store,
            self.storage,
            self.objects,
            self.refs,
            self.directory / layout.STORE_LOCK,
            self.config.core.lock_timeout,
            self.signature,
        )

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

    def plan(
        self,
        *,
        base: str | None = None,
        experts: Sequence[str],
        method: str = "ties",
        budget: str | None = None,
        weights: Sequence[float] | None = None,
        densities: Sequence[float] | None = None,
        out_dtype: str | None = None,
        seed: int = 0,
        allow_missing: bool = False,
        progress: Progress = SILENT,
        told: Told = _say_nothing,
        import_paths: bool = True,
        **parameters: "Setting",
    ) -> "PlannedMerge":
        """How deep to read each block of each expert, under a budget.

        base, experts  revisions, or paths (imported, if `import_paths`); without a base, the
                       experts' common one
        budget         `2GiB`, `25%` of the exact merge's expert bytes, `raw:10%` of the experts'
                       size; None: the exact merge
        parameters     of the method, for all experts (`weight`, `density`, `normalize`, ...)

        Nothing is stored but imports and missing profiles. Raises MergeInputError, OverBudget,
        UsageError, RevisionNotFound.
        """
        from mergepipe.dtypes import dtype_of
        from mergepipe.planner.planner import Planner

        catalog = self.catalog_with(base, progress, told, import_paths)
        return Planner(catalog).plan(
            base,
            experts,
            method,
            budget=budget,
            weights=weights,
            densities=densities,
            dtype=None if out_dtype is None else dtype_of(out_dtype),
            seed=seed,
            allow_missing=allow_missing,
            **cast(dict[str, Any], parameters),
        )

    def store_plan(self, planned: "PlannedMerge") -> ObjectId:
        """Keep a plan, so that its id names it from now on."""
        with self.transactions.begin() as transaction:
            identity = transaction.add_object(encode(planned.plan))
            transaction.publish()
        return identity

    def load_plan(self, planned: "Planned") -> "Plan":
        """A plan given as such, as the result of `plan`, or by id (or a prefix of it)."""
        from mergepipe.objects.merging import Plan
        from mergepipe.planner.build import PlannedMerge

        if isinstance(planned, Plan):
            return planned
        if isinstance(planned, PlannedMerge):
            return planned.plan
        if isinstance(planned, str):
            planned = revisions.resolve(planned, self.refs, self.objects, kinds=("plan",))
        return self.objects.load(planned, Plan)

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
        progress: Progress = SILENT,
    ) -> "MergeResult":
        """Execute a plan and commit its result on a branch (None: the current one).

        Raises MergeInputError, Corruption, MissingObject, NoSpace, Locked; the repository is then
        as it was.
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
        )
        engine = self.engine(device=device, host=host)
        return engine.execute(found, request, reuse=reuse, progress=progress)

    def explain(
        self, what: str, tensor: str | None = None
    ) -> tuple["Explanation", "Plan", ObjectId | None]:
        """Why a merge is what it is: by revision of its commit, or by plan id.

        Returns the explanation, the plan, and the manifest's id where there is one.
        """
        from mergepipe.objects.merging import Manifest
        from mergepipe.planner.explain import explain

        manifest, plan = None, None
        try:
            manifest = self._manifest_of(what)
            plan = self.load_plan(self.objects.load(manifest, Manifest).plan)
        except RevisionNotFound:
            plan = self.load_plan(what)
        catalog = self.catalog
        profiles = [
            None
            if expert.profile is None
            else (expert.profile, catalog.profiles.load(expert.profile))
            for expert in plan.experts
        ]
        found = explain(plan, self.objects, catalog.encodings, profiles, tensor)
        return found, plan, manifest

    def replay(self, revision: str, progress: Progress = SILENT) -> "Replay":
        """Run the merge behind a commit again and compare every id; nothing is written."""
        from mergepipe.engine.replay import replay

        return replay(self.engine(), self._manifest_of(revision), progress=progress)

    def analyze(
        self, revision: str, base: str | None = None, progress: Progress = SILENT
    ) -> ObjectId:
        """The profile of a revision against a base (its commit's, by default), made if need be."""
        commit = self.objects.commit(self.resolve(revision))
        under = commit.base if base is None else self.resolve(base)
        if under is None:
            raise UsageError(f"{revision} leans on no base", "name one with --base")
        return self.profiles().ensure(
            commit.snapshot, self.objects.commit(under).snapshot, progress
        )

    def tensor(self, revision: str, name: str) -> "torch.Tensor":
        """One tensor of a revision, as a torch tensor on the CPU; reads only its blocks."""
        from mergepipe.engine.tensor import read_tensor

        return read_tensor(self.commit_of(revision)[1].snapshot, name, self.objects, self.blocks)

    def catalog_with(
        self,
        base: str | None = None,
        progress: Progress = SILENT,
        told: Told = _say_nothing,
        import_paths: bool = True,
    ) -> "RepositoryCatalog":
        """A catalog whose imports lean on `base`, and which tells what it does on the way."""
        from mergepipe.api.catalog import RepositoryCatalog, as_path, looks_like_path

        def commit_for(text: str) -> ObjectId:
            if not looks_like_path(text):
                try:
                    return self.resolve(text)
                except RevisionNotFound:
                    if not as_path(text).exists():
                        raise
            path = as_path(text)
            if not path.exists():
                raise RevisionNotFound(f"there is no file or directory {text!r}")
            if not import_paths:
                raise UsageError(
                    f"{text} is not in the repository, and a dry run imports nothing",
                    f"import it first: mp commit -b NAME {text}",
                )
            leaning = None if text == base or base is None else base
            commit, read = self.import_path(path, base=leaning, progress=progress)
            if read:
                self.imported_bytes += read
                told(f"imported {text}")
            return commit

        def made(snapshot: ObjectId, under: ObjectId) -> None:
            told(
                f"making the profile of {snapshot.hex()[:12]} against {under.hex()[:12]}: "
                "both are read once, later plans reuse it"
            )

        return RepositoryCatalog(
            self.storage, self.objects, self.profiles(), commit_for, progress, made
        )

    def _manifest_of(self, revision: str) -> ObjectId:
        _, commit = self.commit_of(revision)
        if commit.manifest is None:
            raise MergeInputError(
                f"{revision} is no merge", "mp log shows which commits have a manifest"
            )
        return commit.manifest

    def _input_commits(self, plan: "Plan") -> tuple[ObjectId | None, tuple[ObjectId, ...]]:
        """Commits that hold a plan's inputs: at the tips of refs, else anywhere in history.

        Raises MissingObject for an input that no branch, tag or import reaches.
        """
        wanted = [expert.snapshot for expert in plan.experts]
        wanted += [] if plan.base is None else [plan.base]
        held: dict[ObjectId, ObjectId] = {}
        tips = list(dict.fromkeys(self.refs.list().values()))
        for tip in tips:
            held.setdefault(self.objects.commit(tip).snapshot, tip)
        if any(snapshot not in held for snapshot in wanted):
            for identity, commit in history.reachable_commits(self.objects, tips):
                held.setdefault(commit.snapshot, identity)
        for snapshot in wanted:
            if snapshot not in held:
                raise MissingObject(
                    f"no branch, tag or import reaches the input {snapshot.hex()[:12]}",
                    "commit or fetch that model again; its snapshot id will be the same",
                )
        experts = tuple(held[expert.snapshot] for expert in plan.experts)
        return None if plan.base is None else held[plan.base], experts
