"""A repository: open, commit, look at history, merge, check out.

`Repository` is an open repository and its areas, each of which is a part of its own; here is what
they are called together. Every operation takes its author, time and progress as arguments or from
`Repository.open`; nothing below this module reads the environment or the clock.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import MergepipeError, MissingObject, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId, show_ids, shown
from mergepipe.objects.records import Commit, Snapshot
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import branches, history, notes, revisions
from mergepipe.repository.log import Log
from mergepipe.repository.reflog import ReflogEntry
from mergepipe.repository.refnames import HEADS, TAGS, branch_ref, tag_ref

if TYPE_CHECKING:
    # Areas are loaded when they are asked for: `mp log` answers at once.
    import torch

    from mergepipe.api.auditing import AuditEntry
    from mergepipe.api.catalog import RepositoryCatalog
    from mergepipe.api.comparing import MergeComparison
    from mergepipe.api.contents import Contents
    from mergepipe.api.importing import Imports
    from mergepipe.api.merging import Merging
    from mergepipe.api.opened import Identity
    from mergepipe.api.planning import Planned, Planning, Told
    from mergepipe.api.purging import PurgeResult
    from mergepipe.api.recipes import Recipes
    from mergepipe.api.results import CloneResult, FetchResult, Imported, PullResult, PushResult
    from mergepipe.api.revising import Revising
    from mergepipe.api.sweeping import BudgetSweep
    from mergepipe.api.upkeep import Pruned
    from mergepipe.api.weights import StoredTensors, Weights
    from mergepipe.api.working import Working
    from mergepipe.catalog.suspects import Checked
    from mergepipe.checkpoints.requests import CommitResult
    from mergepipe.checkpoints.worktree import FileChange
    from mergepipe.engine.replay import Replay
    from mergepipe.engine.result import MergeResult
    from mergepipe.objects.merging import Plan
    from mergepipe.planner.build import PlannedMerge
    from mergepipe.planner.recipe import Setting
    from mergepipe.plans.explain import Explanation
    from mergepipe.repository.diff import Diff
    from mergepipe.repository.gc import Collected
    from mergepipe.repository.keeping import Kept
    from mergepipe.repository.notes import Remarks
    from mergepipe.repository.operations import Operation
    from mergepipe.repository.problems import Report
    from mergepipe.repository.retention import Retention
    from mergepipe.repository.tombstones import Tombstone
    from mergepipe.repository.usage import Usage
    from mergepipe.transfer.credentials import Credentials
    from mergepipe.transfer.fetch import FetchOptions
    from mergepipe.transfer.push_refs import PushOptions


class Repository(OpenRepository):
    """A repository of models. Use as a context manager, or call `close`."""

    def __repr__(self) -> str:
        return f"Repository({str(self.directory)!r})"

    # Areas

    @cached_property
    def working(self) -> "Working":
        """Committing the worktree, checking out, switching."""
        from mergepipe.api.working import Working

        return Working(self, self.contents)

    @cached_property
    def contents(self) -> "Contents":
        """Single files of a revision."""
        from mergepipe.api.contents import Contents

        return Contents(self)

    @cached_property
    def revising(self) -> "Revising":
        """Correcting history, by adding to it."""
        from mergepipe.api.revising import Revising

        return Revising(self, self.working)

    @cached_property
    def imports(self) -> "Imports":
        """Taking in models that lie elsewhere."""
        from mergepipe.api.conversions import Conversions
        from mergepipe.api.importing import Imports

        return Imports(self, Conversions(self))

    @cached_property
    def planning(self) -> "Planning":
        """Making, keeping and finding plans."""
        from mergepipe.api.planning import Planning

        return Planning(self, self.imports)

    @cached_property
    def merging(self) -> "Merging":
        """Executing, explaining and replaying plans."""
        from mergepipe.api.merging import Merging

        return Merging(self, self.planning)

    @cached_property
    def recipes(self) -> "Recipes":
        """Plans by recipes of mergekit."""
        from mergepipe.api.recipes import Recipes

        return Recipes(self, self.planning, self.imports, self.merging)

    @cached_property
    def weights(self) -> "Weights":
        """Weights of a revision, for who computes with them."""
        from mergepipe.api.weights import Weights

        return Weights(self)

    def explain_loss(self, error: MissingObject) -> MergepipeError:
        """What to tell of a block that is nowhere: of a lazy clone, what its remote says."""
        if not self.storage.promises.remote:
            return error
        from mergepipe.api.losses import explained

        return explained(self, error)

    # Revisions and history

    def snapshot_of(self, revision: str) -> Snapshot:
        """The snapshot of the commit a revision names."""
        return self.objects.snapshot(self.model_of(revision)[1].snapshot)

    def log(
        self,
        revision: str | None = "HEAD",
        *,
        topological: bool = False,
        first_parent: bool = False,
    ) -> Log:
        """Commits from a revision back, newest first, read as they are asked for.

        None: from every branch, tag, branch of a remote, and HEAD. With `first_parent`, the line of
        a branch itself, without what was merged into it. `A..B` is as in git: what is in B and not
        in A, where either may be left out for HEAD; `A...B` what is in one of them only.
        """
        if revision is None:
            every = self._tips()
            return Log(lambda: history.walk(self.objects, every, topological=topological))
        limits = revisions.parse_range(revision)
        tips = [self.resolve(one) for one in limits.among]
        hidden = history.hidden(
            self.objects, [[self.resolve(one) for one in each] for each in limits.hidden]
        )

        def begin() -> Iterator[tuple[ObjectId, Commit]]:
            commits = (
                history.first_parents(self.objects, tips[-1])
                if first_parent
                else history.walk(self.objects, tips, topological=topological)
            )
            return (each for each in commits if each[0] not in hidden)

        return Log(begin)

    def descendants(self, revision: str) -> Iterator[tuple[ObjectId, Commit]]:
        """Every commit whose model came from a revision's, by merging or training; newest first.

        Of what any branch, tag or remote's branch holds; the revision itself is not among them.
        """
        return history.descendants(self.objects, [self.resolve(revision)], self._tips())

    def containing(self, revision: str) -> frozenset[ObjectId]:
        """A revision's commit and all that came from it."""
        return frozenset(
            (self.resolve(revision), *(each for each, _ in self.descendants(revision)))
        )

    def _tips(self) -> list[ObjectId]:
        head = self.refs.head().commit
        return list(dict.fromkeys([*([] if head is None else [head]), *self.refs.list().values()]))

    def diff(self, a: str, b: str = "HEAD", *, progress: Progress = SILENT) -> "Diff":
        """How the model of revision `b` differs from that of `a`, tensor by tensor."""
        from mergepipe.api.comparing import diff

        return diff(self, a, b, progress)

    def compare_merges(
        self, a: str, b: str = "HEAD", *, progress: Progress = SILENT
    ) -> "MergeComparison":
        """Why merge `b` differs from merge `a`: changed inputs, moved tensors, and whose doing."""
        from mergepipe.api.comparing import compare_merges

        return compare_merges(self, self.planning, self.merging, a, b, progress)

    def check(
        self, revision: str = "HEAD", against: str | None = None, *, progress: Progress = SILENT
    ) -> "Checked":
        """Tensors of a revision that look wrong: not finite, zeroed, or unlike another model's.

        Without `against`: compared with what it was trained from, or else what it leans on; and how
        much each tensor changed with how much it had changed in the version before, if statistics
        of both are here.
        """
        from mergepipe.catalog.suspects import Checked, Suspicion, suspects
        from mergepipe.repository.diff import Change

        identity, commit = self.model_of(revision)
        under = commit.trained_from or commit.leans_on if against is None else self.resolve(against)
        if against is None and under is not None and not self.has_model(under):
            under = None
        self.finiteness.ensure(commit.snapshot, progress)
        nonfinite = self.finiteness.named(commit.snapshot) or ()
        tensors = (
            () if under is None else self.diff(under.hex(), revision, progress=progress).tensors
        )
        suspect_tensors = list(suspects(nonfinite, tensors))
        if against is None:
            named = {one.tensor for one in suspect_tensors}
            more = (one for one in self.suspects_of(identity) if one.kind is not Suspicion.UNLIKE)
            suspect_tensors += [one for one in more if one.tensor not in named]
        return Checked(
            identity.hex(),
            None if under is None else under.hex(),
            tuple(suspect_tensors),
            missing=tuple(one.name for one in tensors if one.change is Change.REMOVED),
            added=tuple(one.name for one in tensors if one.change is Change.ADDED),
        )

    def usage(self, named: Sequence[str] = ()) -> "Usage":
        """The room that these revisions take; every branch, tag and import if none is named."""
        from mergepipe.api import upkeep

        return upkeep.usage(self, named)

    def gc(
        self,
        *,
        dry_run: bool = False,
        keep_reflog: bool = True,
        grace_s: float | None = None,
        progress: Progress = SILENT,
    ) -> "Collected":
        """Free what no ref, reflog or worktree needs. Raises Locked, Corruption.

        What was stored less than `grace_s` seconds ago stays (None: as `gc.grace` says; 0: goes).
        """
        from mergepipe.api import upkeep

        return upkeep.gc(
            self, dry_run=dry_run, keep_reflog=keep_reflog, grace_s=grace_s, progress=progress
        )

    def gc_bucket(
        self,
        remote: str,
        *,
        dry_run: bool = False,
        grace_s: float | None = None,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "Collected":
        """Free what no ref of a remote that is a bucket needs, and none did for `grace_s` seconds.

        Raises UsageError for other remotes, Locked while somebody writes there, Corruption,
        RemoteUnreachable, AuthenticationError.
        """
        from mergepipe.api import upkeep
        from mergepipe.transfer.credentials import Credentials

        given = credentials or Credentials()
        return upkeep.gc_bucket(
            self, remote, given, dry_run=dry_run, grace_s=grace_s, progress=progress
        )

    def why_kept(self, what: str) -> "Kept":
        """Which refs, reflogs, worktree or running work keep a commit, object, block or pack.

        `what` is a revision or the beginning of an id. Raises RevisionNotFound.
        """
        from mergepipe.api import upkeep

        return upkeep.why_kept(self, what)

    def expire_reflog(self, before: int, ref: str | None = None) -> int:
        """Drop moves before a moment (Unix seconds) from a ref's log, or all logs; how many went.

        The last move of each ref stays. What only these lines named is gc's to free.
        """
        from mergepipe.api import upkeep

        return upkeep.expire_reflog(self, before, ref)

    def prune(
        self,
        branches: Sequence[str] = (),
        retention: "Retention | None" = None,
        *,
        keep_tags: bool = True,
        dry_run: bool = False,
        grace_s: float | None = 0,
        progress: Progress = SILENT,
    ) -> "Pruned":
        """Let go of the models of old commits of branches (none named: of all), and free them.

        They go now, or with the next gc `grace_s` seconds later (None: as `gc.grace` says).

        History stays as it is: ids, messages, what came from what. Kept are what `retention` keeps
        (by default each branch's tip), every tip of a branch or import, HEAD, with `keep_tags` what
        tags name, and what a kept model was trained from or merged of. Raises Locked, Corruption.
        """
        from mergepipe.api import upkeep
        from mergepipe.repository.retention import Retention

        return upkeep.prune(
            self,
            branches,
            retention or Retention(),
            keep_tags=keep_tags,
            dry_run=dry_run,
            grace_s=grace_s,
            progress=progress,
        )

    def purge(
        self,
        *revisions: str,
        reason: str = "",
        remotes: Sequence[str] = (),
        dry_run: bool = False,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "PurgeResult":
        """Remove the models of revisions for good: refs, blocks, statistics, notes of merges.

        What they share with models that are kept stays, and so does their place in history. A
        tombstone says who did it, when and why; nobody brings such a model again by a commit, push
        or fetch before `lift_purge`. `remotes` (names or URLs) are asked first; RemoteRefused if
        one does not allow it. Raises Locked, NoSpace, Corruption, MergepipeError.
        """
        from mergepipe.api import purging

        return purging.purge_models(
            self,
            revisions,
            reason,
            remotes=remotes,
            dry_run=dry_run,
            credentials=credentials,
            progress=progress,
        )

    def lift_purge(self, revision: str) -> "list[Tombstone]":
        """Let a purged model come back, by whoever brings it. Raises RevisionNotFound."""
        from mergepipe.api import purging

        return purging.lift(self, revision)

    def fsck(
        self,
        *,
        read_data: bool | str = False,
        repair: bool = False,
        progress: Progress = SILENT,
    ) -> "Report":
        """Check everything. Problems are no error: look at `Report.ok`. Raises Locked, UsageError.

        `read_data`: read all of it, or `5%` or `20GiB` of it, after what was read the last time.

        `repair` puts right what can be: it reads all data, sets damage aside, and brings what is
        missing from files here and from remotes.
        """
        from mergepipe.api import healing, upkeep
        from mergepipe.repository.reading_rounds import Portion

        if repair:
            return healing.repair(self, progress=progress)
        portion = Portion.parse(read_data) if isinstance(read_data, str) else None
        whole = portion is None and bool(read_data)
        return upkeep.fsck(self, read_data=whole, repair=False, portion=portion, progress=progress)

    def reflog(self, ref: str = "HEAD") -> list[ReflogEntry]:
        """Where a ref was, newest first; `ref` may be a short branch name."""
        assert self.refs.reflog is not None
        for name in (ref, HEADS + ref, TAGS + ref, f"refs/{ref}"):
            if entries := self.refs.reflog.read(name):
                for entry in entries:
                    show_ids(entry, "old", "new")
                return entries
        if revisions.find_ref(ref, self.refs) is not None:
            return []  # HEAD before the first commit, or a ref whose log was removed
        raise RevisionNotFound(f"no log of {ref!r}", "mp branch and mp tag list what there is")

    def damaged_log(self, ref: str = "HEAD") -> int | None:
        """The number of the first damaged line of a ref's log, which `reflog` leaves out."""
        assert self.refs.reflog is not None
        names = (ref, HEADS + ref, TAGS + ref, f"refs/{ref}")
        damages = (self.refs.reflog.damaged(name) for name in names)
        return next((number for number in damages if number is not None), None)

    def audit(self, since: str | None = None, until: str | None = None) -> "list[AuditEntry]":
        """Who did what, oldest first: commits, merges with inputs and costs, pushes, purges.

        `since` and `until` as `mp log` takes them: `yesterday`, `2 weeks ago`, `2026-11-22`.
        """
        from mergepipe.api.auditing import audit
        from mergepipe.repository.dates import parse_moment

        clock = self.clock()
        return audit(
            self,
            self.planning,
            self._tips(),
            None if since is None else parse_moment(since, clock),
            None if until is None else parse_moment(until, clock),
        )

    # Notes

    def note(self, revision: str, **values: object) -> "Remarks":
        """Note values on a commit, outside of its id: `note("prod", loss=3.61)`; "" takes one back.

        push and fetch carry notes along; of two sides, what was said last stands. Returns all that
        is noted of the commit now. Raises UsageError for what is no key or no line of text.
        """
        identity, who = self.resolve(revision), self.signature()
        self.guard()
        with self.refs.locked():
            told = {key: str(value) for key, value in values.items()}
            return notes.standing(notes.add_notes(self.store, identity, told, who))

    def notes(self, revision: str = "HEAD") -> "Remarks":
        """What is noted of a commit, by key: value, author, time."""
        return notes.standing(notes.read_notes(self.store, self.resolve(revision)))

    # Committing and checking out

    def commit(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        message: str = "",
        branch: str | None = None,
        base: str | None = None,
        verify: bool = True,
        progress: Progress = SILENT,
    ) -> "CommitResult":
        """Commit the worktree, or the directory or file `path`, onto a branch.

        Of several paths the commit holds these files only: those of the worktree as they lie in it,
        others under their names.
        `branch` (made if it is not there) defaults to where HEAD is. `verify`: whether the
        pre-commit hook has a say. Raises HookFailed, NothingToCommit,
        MalformedFile, IncompleteCheckpoint, SourceChanged, UnsafePath, NoSpace, Locked.
        """
        return self.working.commit(
            path, message=message, branch=branch, base=base, verify=verify, progress=progress
        )

    def status(self, progress: Progress = SILENT) -> tuple["FileChange", ...]:
        """How the worktree differs from HEAD, sorted by path."""
        return self.working.status(progress)

    def checkout(
        self,
        revision: str,
        *,
        to: str | Path | None = None,
        tensors: Sequence[str] = (),
        paths: Sequence[str] = (),
        force: bool = False,
        progress: Progress = SILENT,
    ) -> Path:
        """Write a revision's files: into the worktree (HEAD follows), or into the directory `to`.

        With `paths`, only these files or folders of it, over what is there, as in git: HEAD stays.
        With `tensors`, one safetensors file of just those: `to` if it ends in `.safetensors`, else
        `to/tensors.safetensors`. Returns where it wrote. Raises WorktreeDirty unless `force`.
        """
        return self.working.checkout(
            revision, to=to, tensors=tensors, paths=paths, force=force, progress=progress
        )

    def switch(
        self,
        branch: str,
        *,
        create: bool = False,
        start: str = "HEAD",
        force: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """Put HEAD on a branch; files follow if any were materialised.

        With `create` it is made, at the revision `start`. Raises RevisionNotFound, RefExists,
        WorktreeDirty.
        """
        with self.operations.operation("python"):
            self.working.switch(branch, create=create, start=start, force=force, progress=progress)

    def reset(
        self, revision: str = "HEAD", *, hard: bool = False, progress: Progress = SILENT
    ) -> ObjectId:
        """Move the current branch to a revision; with `hard` the worktree follows, changes lost."""
        return self.working.reset(revision, hard=hard, progress=progress)

    def undo(
        self, operation: str | None = None, *, force: bool = False, progress: Progress = SILENT
    ) -> "Operation":
        """Take back what a command did to branches, tags and HEAD; returns that operation.

        Without `operation` (the beginning of an id of `operations.read()`) the last one, which may
        be an undo. Files follow where they did. Raises RefMoved where one moved since,
        WorktreeDirty unless `force`, RevisionNotFound for what gc took.
        """
        from mergepipe.api.undoing import undo

        return undo(self, self.working, operation, force=force, progress=progress)

    def import_list(self, path: Path, progress: Progress = SILENT) -> "Iterator[Imported]":
        """Commit every model of a list (docs/cli.md, "Import lists"), bases first, one at a time.

        A model whose branch holds these very files already is not read again, so that a list that
        was interrupted goes on where it stopped. Every path, branch and base is checked before the
        first model is read. Raises ConfigError for the list, and what committing raises.
        """
        return self.imports.import_list(path, progress)

    # Merging

    @property
    def catalog(self) -> "RepositoryCatalog":
        """What a `Planner` needs to know of this repository."""
        return self.planning.catalog

    def plan(
        self,
        *,
        base: str | None = None,
        experts: Sequence[str],
        method: str = "ties",
        budget: str | float | None = None,
        weights: Sequence[float] | None = None,
        densities: Sequence[float] | None = None,
        out_dtype: str | None = None,
        seed: int = 0,
        allow_missing: bool = False,
        budget_total: str | float | None = None,
        max_share: str | float | None = None,
        progress: Progress = SILENT,
        told: "Told | None" = None,
        import_paths: bool = True,
        **parameters: "Setting",
    ) -> "PlannedMerge":
        """How deep to read each block of each expert, under a budget.

        base, experts  revisions, or paths (imported, if `import_paths`); without a base, the
                       experts' common one
        budget         `2GiB`, `25%` of the exact merge's expert bytes, `raw:10%` of the experts'
                       size, or a number of bytes; None: the exact merge
        budget_total   instead: the same with what is read of the base
        max_share      what one expert may get of the budget, in percent: `40%`, or 40
        parameters     of the method, for all experts (`weight`, `density`, `lambda_`, ...)

        Nothing is stored but imports and missing profiles; see `Planning.plan` for what is not
        even read. Raises MergeInputError, OverBudget, UsageError, RevisionNotFound.
        """
        from mergepipe.api.plan_request import PlanRequest, without_underscores
        from mergepipe.api.planning import say_nothing

        request = PlanRequest(
            experts=experts,
            base=base,
            method=method,
            budget=budget,
            weights=weights,
            densities=densities,
            out_dtype=out_dtype,
            seed=seed,
            allow_missing=allow_missing,
            parameters=without_underscores(parameters),
            budget_total=budget_total,
            max_share=max_share,
        )
        return self.planning.plan(
            request, progress=progress, told=told or say_nothing, store=import_paths
        )

    def plan_recipe(
        self,
        recipe: str | Path,
        *,
        budget: str | float | None = None,
        seed: int = 0,
        allow_missing: bool = False,
        shard_bytes: int | None = None,
        title: str = "Merged model",
        budget_total: str | float | None = None,
        max_share: str | float | None = None,
        progress: Progress = SILENT,
        told: "Told | None" = None,
        store: bool = True,
    ) -> "PlannedMerge":
        """The plan of a mergekit recipe: the path of a file, or YAML text (it has a line end).

        budget, budget_total, max_share  as of `plan`
        allow_missing  tensors that a model lacks count as the base's
        shard_bytes    of a safetensors file of the output at most
        title          of the model card
        told           takes messages: warnings about the recipe, imports, profiles that are made

        Models are revisions, or paths beside the recipe, which are imported. What can be refused is
        refused before a weight is read or anything is written: UsageError for a file that cannot be
        understood, MergeInputError for what cannot be merged. With `store` False nothing is
        written at all.
        """
        from mergepipe.api.planning import say_nothing
        from mergepipe.api.recipes import RecipeOptions

        options = RecipeOptions(
            budget=budget,
            seed=seed,
            allow_missing=allow_missing,
            shard_bytes=shard_bytes,
            title=title,
            budget_total=budget_total,
            max_share=max_share,
        )
        return self.recipes.plan(
            recipe, options, progress=progress, told=told or say_nothing, store=store
        )

    def merge_recipe(
        self,
        recipe: str | Path,
        *,
        branch: str | None = None,
        message: str = "",
        budget: str | float | None = None,
        seed: int = 0,
        allow_missing: bool = False,
        shard_bytes: int | None = None,
        device: str = "cpu",
        allow_nonfinite: bool = False,
        budget_total: str | float | None = None,
        max_share: str | float | None = None,
        progress: Progress = SILENT,
        told: "Told | None" = None,
    ) -> "MergeResult":
        """Merge by a recipe, and commit on a branch (None: the current one); see `plan_recipe`."""
        before = self.imported_bytes
        planned = self.plan_recipe(
            recipe,
            budget=budget,
            seed=seed,
            allow_missing=allow_missing,
            shard_bytes=shard_bytes,
            title=branch or "Merged model",
            budget_total=budget_total,
            max_share=max_share,
            progress=progress,
            told=told,
        )
        return self.merge(
            planned,
            branch=branch,
            message=message or "Merge by a recipe",
            device=device,
            import_bytes=self.imported_bytes - before,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )

    def store_plan(self, planned: "Planned") -> ObjectId:
        """Keep a plan and its models until a merge carries it out, `gc.grace` (2 weeks) at most."""
        return self.planning.store_plan(planned)

    def write_plan(self, planned: "Planned", path: str | Path) -> ObjectId:
        """Write a plan to a file, for another clone or a later day; returns its id."""
        from mergepipe.api.plan_files import write_plan

        return write_plan(self.planning, planned, Path(path))

    def read_plan(self, path: str | Path) -> "Plan":
        """Take in a plan that `write_plan`, or `mp plan --out`, wrote.

        Raises MalformedFile, NewerFormat, MissingObject for a model or profile that is not here.
        """
        from mergepipe.api.plan_files import read_plan

        return read_plan(self.planning, Path(path))[1]

    def load_plan(self, planned: "Planned") -> "Plan":
        """A plan given as such, as the result of `plan`, or by id (or a prefix of it)."""
        return self.planning.load_plan(planned)

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
        """Execute a plan and commit its result on a branch (None: the current one).

        Values that are not finite, in the inputs or in the result, are refused (MergeInputError)
        unless `allow_nonfinite`; the result names them. `names` are what messages call the plan's
        models. `verify`: whether the pre-merge hook has a say.
        Raises HookFailed, MergeInputError, Corruption, MissingObject, NoSpace, Locked; the
        repository is then as it was.
        """
        return self.merging.merge(
            plan,
            branch=branch,
            message=message,
            device=device,
            host=host,
            reuse=reuse,
            import_bytes=import_bytes,
            allow_nonfinite=allow_nonfinite,
            names=names,
            verify=verify,
            progress=progress,
        )

    def explain(
        self, what: str, tensor: str | None = None
    ) -> tuple["Explanation", "Plan", ObjectId | None]:
        """Why a merge is what it is: by revision of its commit, or by plan id.

        Returns the explanation, the plan, and the manifest's id where there is one.
        """
        return self.merging.explain(what, tensor)

    def sweep(self, planned: "Planned", shares: Sequence[float] | None = None) -> "BudgetSweep":
        """What each of several budgets would keep of the changes that a plan merges.

        planned  as `plan` returned it (with any budget: all are priced anew), or a plan's id
        shares   of the expert bytes that the exact merge reads, above 0 and at most 1; some from
                 1% to all of them if None

        Reads no weights. The result prints as a table, and has `to_frame()`. Raises UsageError for
        other shares, MergeInputError where no expert has a profile.
        """
        return self.merging.sweep(planned, shares)

    def replay(self, revision: str, progress: Progress = SILENT) -> "Replay":
        """Run the merge behind a commit again and compare every id; nothing is written."""
        return self.merging.replay(revision, progress)

    def analyze(
        self, revision: str, base: str | None = None, progress: Progress = SILENT
    ) -> ObjectId:
        """The profile of a revision against a base, made if it is not known.

        Without `base`: what the revision was trained from, or else what it leans on. Blocks that a
        budget could not read coarsely over the base are stored once more, so that it can.
        """
        return shown(self.merging.analyze(revision, base, progress))

    # Weights

    def tensor(self, revision: str, name: str) -> "torch.Tensor":
        """One tensor of a revision, as a torch tensor on the CPU; reads only its blocks."""
        return self.weights.tensor(revision, name)

    def tensors(self, revision: str = "HEAD") -> "StoredTensors":
        """Every tensor of a revision: name, shape and dtype now, weights by `read()`."""
        return self.weights.tensors(revision)

    def read_tensors(
        self, revision: str = "HEAD", *, progress: Progress = SILENT
    ) -> "Iterator[tuple[str, torch.Tensor]]":
        """Every tensor of a revision by name, in the order of its files.

        A few are read ahead on all threads, so memory is bounded by them, and by what the caller
        keeps.
        """
        return self.weights.read_tensors(revision, progress=progress)

    def state_dict(
        self, revision: str = "HEAD", *, progress: Progress = SILENT
    ) -> "dict[str, torch.Tensor]":
        """All weights of a revision, as `model.load_state_dict` takes them, on the CPU."""
        return self.weights.state_dict(revision, progress=progress)

    def load_into(
        self,
        model: "torch.nn.Module",
        revision: str = "HEAD",
        *,
        strict: bool = True,
        progress: Progress = SILENT,
    ) -> tuple[str, ...]:
        """Copy a revision's weights into a model, wherever it is, in the dtypes that it has.

        Tensor by tensor, so that nothing is in memory twice. Returns the model's names that got
        nothing. With `strict`, raises MergeInputError, before anything is copied, for tensors that
        only one side has; and always for shapes that differ. Weights that the model shares (a tied
        head) are there if one of their names is.
        """
        return self.weights.load_into(model, revision, strict=strict, progress=progress)

    # Remotes

    @classmethod
    def clone(
        cls,
        url: str | Path,
        directory: str | Path | None = None,
        *,
        branch: str | None = None,
        lazy: bool = False,
        depth: int | None = None,
        checkout: bool = True,
        credentials: "Credentials | None" = None,
        who: "Identity | None" = None,
        progress: Progress = SILENT,
    ) -> "CloneResult":
        """Make a repository that has what the one at a URL has; `directory` defaults to its name.

        With `branch`, only that one and its history; `depth`: so many commits of each branch. A
        clone that fails leaves nothing behind. Raises UsageError, RevisionNotFound, and as `fetch`.
        """
        from mergepipe.api.cloning import clone

        return clone(
            str(url),
            None if directory is None else Path(directory),
            branch=branch,
            lazy=lazy,
            depth=depth,
            checkout=checkout,
            credentials=credentials,
            who=who,
            progress=progress,
        )

    def push(
        self,
        remote: str | None = None,
        options: "PushOptions | None" = None,
        *,
        credentials: "Credentials | None" = None,
        verify: bool = True,
        progress: Progress = SILENT,
    ) -> "PushResult":
        """Send commits to a remote (name or URL; None: origin) and move its refs.

        `verify`: whether the pre-push hook has a say.
        Raises HookFailed, RefMoved (not a fast-forward, or somebody else was faster), UsageError,
        RevisionNotFound, RemoteUnreachable, RemoteRefused, AuthenticationError.
        """
        from mergepipe.api import pushing

        return pushing.push(self, remote, options, credentials, progress, verify=verify)

    def fetch(
        self,
        remote: str | None = None,
        options: "FetchOptions | None" = None,
        *,
        heal: bool = False,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "FetchResult":
        """Bring what a remote (None: origin) has; `refs/remotes/` follows, nothing else moves.

        What is known to be damaged or missing here comes too; with `heal` all data is read to know.
        How far back history comes is `options.reach` (`mergepipe.transfer.horizon.Reach`).

        Raises RevisionNotFound, RemoteUnreachable, RemoteRefused, AuthenticationError, Corruption
        (the remote is damaged, or lies), NoSpace.
        """
        from mergepipe.api import pulling

        return pulling.fetch(self, remote, options, credentials, progress, heal=heal)

    def pull(
        self,
        remote: str | None = None,
        branch: str | None = None,
        *,
        depth: int | None = None,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "PullResult":
        """Fetch a branch and move the current one forward to it; files follow, as with `switch`.

        `depth`: so many commits of it, as `fetch` has it. Raises Diverged, WorktreeDirty,
        RevisionNotFound, and as `fetch`.
        """
        from mergepipe.api import pulling

        def follow(commit: ObjectId) -> bool:
            return self.working.follow(commit, force=False, progress=progress)

        return pulling.pull(self, remote, branch, credentials, progress, follow, depth=depth)

    # Branches and tags

    def branch(self, name: str, revision: str = "HEAD", *, force: bool = False) -> ObjectId:
        """Make a branch at a revision; `force` moves one that is there. Raises RefExists."""
        return self._make_ref(branch_ref(name), revision, force)

    def tag(
        self, name: str, revision: str = "HEAD", *, force: bool = False, message: str = ""
    ) -> ObjectId:
        """Make a tag at a revision; `force` moves one that is there. Raises RefExists.

        A message is kept in the tag's log, in this repository.
        """
        return self._make_ref(tag_ref(name), revision, force, message)

    def delete_branch(self, name: str, *, force: bool = False) -> ObjectId:
        """Remove a branch; without `force`, only one whose commits another ref still reaches."""
        ref, who = branch_ref(name), self.signature()
        return shown(branches.delete_branch(self.refs, self.objects, ref, force=force, who=who))

    def branches(self) -> dict[str, ObjectId]:
        """Every branch of this repository and its tip, sorted by name."""
        return {ref.removeprefix(HEADS): shown(at) for ref, at in self.refs.list(HEADS).items()}

    def tags(self) -> dict[str, ObjectId]:
        """Every tag and its commit, sorted by name."""
        return {ref.removeprefix(TAGS): shown(at) for ref, at in self.refs.list(TAGS).items()}

    def rename_branch(self, new: str, old: str | None = None) -> ObjectId | None:
        """Rename a branch, the current one by default; its log, and HEAD, go along.

        Returns its tip, None for one without commits. Raises RevisionNotFound, RefExists.
        """
        current = self.refs.head().branch
        source = current if old is None else branch_ref(old)
        if source is None:
            raise UsageError("HEAD is on no branch", "say which one: mp branch -m OLD NEW")
        tip = branches.rename_branch(self.refs, source, branch_ref(new), who=self.signature())
        return None if tip is None else shown(tip)

    def delete_tag(self, name: str) -> ObjectId:
        """Remove a tag."""
        return shown(branches.delete_tag(self.refs, tag_ref(name), who=self.signature()))

    def _make_ref(self, ref: str, revision: str, force: bool, message: str = "") -> ObjectId:
        at, who = self.resolve(revision), self.signature()
        self.refuse_purged(at, f"the model of {revision}")
        return branches.make_ref(
            self.refs, ref, at, force=force, who=who, revision=revision, message=message
        )
