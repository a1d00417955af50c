"""Planning in a repository: experts by revision or by path, missing profiles made on the way."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mergepipe.api import asked
from mergepipe.api.asked import Asked
from mergepipe.api.importing import Imports
from mergepipe.api.left_out import recall, remember
from mergepipe.api.naming import Holder, holders
from mergepipe.api.opened import OpenRepository
from mergepipe.errors import RevisionNotFound, UsageError
from mergepipe.ids import ObjectId, object_id
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import revisions
from mergepipe.repository.refnames import REMOTES
from mergepipe.repository.waiting import await_approval
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    # Planning brings in numpy; `mp log` must not wait for it.
    from mergepipe.api.catalog import RepositoryCatalog
    from mergepipe.api.plan_request import PlanRequest
    from mergepipe.api.recipe_models import RecipeModels
    from mergepipe.methods.protocol import Method
    from mergepipe.objects.merging import Plan, Profile
    from mergepipe.packs.storage import Storage
    from mergepipe.planner.build import PlannedMerge
    from mergepipe.planner.lines import Merge
    from mergepipe.plans.left_out import LeftOut

    Planned: TypeAlias = PlannedMerge | Plan | ObjectId | str

Told = Callable[[str], None]
"""Takes a message for the user about something that is done on the way."""


def say_nothing(message: str) -> None:
    """The default for messages."""


class Planning:
    """The part of a repository that plans merges."""

    def __init__(self, opened: OpenRepository, imports: Imports) -> None:
        self._repo = opened
        self._imports = imports

    @property
    def catalog(self) -> "RepositoryCatalog":
        """What a `Planner` needs to know of this repository."""
        return self.catalog_with()

    def plan(
        self,
        request: "PlanRequest",
        *,
        progress: Progress = SILENT,
        told: Told = say_nothing,
        store: bool = True,
    ) -> "PlannedMerge":
        """The plan of a request (`Repository.plan`). With `store` False nothing is written.

        Paths are then refused, and profiles that have to be made are not kept.

        What is wrong whatever the models are is refused first, then names that do not resolve, then
        inputs that do not fit; only then is a weight read.
        """
        from mergepipe.methods import registry
        from mergepipe.planner.planner import Planner
        from mergepipe.plans.left_out import lines

        request.check()
        catalog = self.catalog_with(request.base, progress, told, store)
        method = registry.find(request.method)
        self._check_inputs(request, method, store, told)
        with self._repo.objects.keeping():
            planner = Planner(catalog)
            recipe = planner.recipe(
                request.base,
                request.experts,
                request.method,
                own=request.own(),
                parameters=request.parameters,
                dtype=request.dtype(method),
                seed=request.seed,
                allow_missing=request.allow_missing,
            )
            planned = planner.build(recipe, request.limits())
        for warning in planned.merge.warnings:
            told(f"warning: {warning}")
        for line in lines(planned.left_out):
            told(line)
        if store:
            self.remember(planned)
        return planned

    def remember(self, planned: "PlannedMerge") -> None:
        """Keep what a plan's object does not say: what it leaves out, and what was asked."""
        remember(self._repo.storage, planned.id, planned.left_out)
        asked.remember(self._repo.storage, planned.id, Asked.of(planned))

    def asked(self, planned: "Planned") -> "Asked":
        """The budget and the names that a plan was made with, as far as they are known here."""
        from mergepipe.planner.build import PlannedMerge

        if isinstance(planned, PlannedMerge):
            return Asked.of(planned)
        identity = object_id(encode(self.load_plan(planned)))
        return asked.recall(self._repo.storage, identity) or Asked()

    def left_out(self, planned: "Planned") -> "tuple[LeftOut, ...]":
        """What a plan leaves out of its models.

        Of a plan by id: what was kept when it was made here, which is nothing for one from
        elsewhere.
        """
        from mergepipe.planner.build import PlannedMerge

        if isinstance(planned, PlannedMerge):
            return planned.left_out
        return recall(self._repo.storage, object_id(encode(self.load_plan(planned))))

    def plan_merge(
        self,
        merge: "Merge",
        budget: str | float | None = None,
        *,
        progress: Progress = SILENT,
        told: Told = say_nothing,
        store: bool = True,
    ) -> "PlannedMerge":
        """The plan of a merge that a front end spelled out line by line; all else as `plan`.

        With `store` False, profiles that have to be made are not kept.
        """
        from mergepipe.planner.budget import Budget
        from mergepipe.planner.planner import Planner

        catalog = self.catalog_with(None, progress, told, store)
        return Planner(catalog).build_merge(merge, Budget.parse(budget))

    def store_plan(self, planned: "Planned", *, waits: bool = True) -> ObjectId:
        """Keep a plan, so that its id names it.

        With `waits` it stays for `gc.grace`, with all that it needs, until a merge carries it out;
        else until the next gc.
        """
        with self._repo.transactions.begin() as transaction:
            identity = transaction.add_object(encode(self.load_plan(planned)))
            transaction.publish()
            if waits:
                await_approval(self._repo.local, identity)
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
            return self.find_plan(planned)[1]
        return self._repo.objects.load(planned, Plan)

    @property
    def objects(self) -> ObjectStore:
        """The repository's objects."""
        return self._repo.objects

    @property
    def storage(self) -> "Storage":
        """Where they lie."""
        return self._repo.storage

    def moved(self, planned: "Planned") -> list[tuple[str, str, str]]:
        """The models that a plan's names stand for no longer: name, then, and now (short ids).

        Raises RevisionNotFound for a plan of which nobody knows here how its models were named.
        """
        plan, said = self.load_plan(planned), self.asked(planned)
        if len(said.names) != len(plan.models):
            raise RevisionNotFound(
                "how the plan's models were named is not known here",
                "mp plan --out FILE writes it down, and mp merge --plan FILE reads it",
            )
        moves = []
        for name, then in zip(said.names, plan.models, strict=True):
            now = self._named(name)
            if now != then:
                moves.append((name, then.hex()[:12], "gone" if now is None else now.hex()[:12]))
        return moves

    def _named(self, name: str) -> ObjectId | None:
        """The snapshot that a name stands for now; None if for nothing, or for changed files."""
        from mergepipe.api.catalog import as_path, looks_like_path

        if looks_like_path(name):
            known = self._imports.known(as_path(name))
            return None if known is None else self._repo.objects.commit(known).snapshot
        try:
            return self.catalog_with(store=False).revision(name).snapshot
        except RevisionNotFound:
            return self._named_at_remotes(name)
        except UsageError:  # a path that looks like none
            known = self._imports.known(as_path(name))
            return None if known is None else self._repo.objects.commit(known).snapshot

    def _named_at_remotes(self, name: str) -> ObjectId | None:
        """The snapshot of the branch that remotes have under a name, if it is one and the same."""
        tips = {
            tip
            for ref, tip in self._repo.refs.list(REMOTES).items()
            if ref.removeprefix(REMOTES).partition("/")[2] == name
        }
        snapshots = {self._repo.objects.commit(tip).snapshot for tip in tips}
        return snapshots.pop() if len(snapshots) == 1 else None

    def find_plan(self, text: str) -> tuple[ObjectId, "Plan"]:
        """The stored plan that an id, or the beginning of one, names.

        Raises RevisionNotFound, AmbiguousRevision.
        """
        from mergepipe.objects.merging import Plan

        try:
            identity = revisions.resolve(text, self._repo.refs, self._repo.objects, kinds=("plan",))
        except RevisionNotFound as error:
            raise RevisionNotFound(
                f"no stored plan has the id {quoted(text)}",
                "mp plan prints the id of what it stores; gc removes plans that no merge used",
            ) from error
        if (kind := self._repo.objects.kind(identity)) != "plan":
            raise RevisionNotFound(
                f"{quoted(text)} is a {kind}, not a plan", "mp plan prints the id of a plan"
            )
        return identity, self._repo.objects.load(identity, Plan)

    def catalog_with(
        self,
        base: str | None = None,
        progress: Progress = SILENT,
        told: Told = say_nothing,
        store: bool = True,
    ) -> "RepositoryCatalog":
        """A catalog whose imports lean on `base`, and which tells what it does on the way.

        Without `store`, paths are refused and profiles are made for the moment only.
        """
        from mergepipe.api.catalog import RepositoryCatalog, as_path

        def commit_for(text: str) -> ObjectId:
            if not self._is_path(text):
                return self._imports.conversions.readable(
                    self._repo.model_of(text)[0],
                    label=text,
                    told=told,
                    store=store,
                    progress=progress,
                )
            if not store:
                raise not_imported(text)
            leaning = None if text == base or base is None else base
            if leaning is not None and self._is_path(leaning):
                leaning = commit_for(leaning).hex()
            commit, read = self._imports.import_path(as_path(text), base=leaning, progress=progress)
            if read:
                self._repo.imported_bytes += read
                told(f"imported {escape_for_terminal(text)}: {format_size(read)} read")
            return commit

        def make_profile(snapshot: ObjectId, under: ObjectId) -> tuple[ObjectId, "Profile"]:
            names = {
                key: holder.name[:12] for key, holder in self.holders([snapshot, under]).items()
            }
            name, other = (names.get(key, key.hex()[:12]) for key in (snapshot, under))
            told(
                f"no profile of {name} against {other} yet: both are read once to make it"
                + (", later plans reuse it" if store else " (a dry run does not keep it)")
            )
            return self.make_profile(snapshot, under, progress, store=store)

        beside = ObjectsInMemory()

        def keep(snapshot: Snapshot, contents: Mapping[str, bytes]) -> ObjectId:
            from mergepipe.checkpoints.layouts import with_contents

            size = self._repo.config.store.block_size
            if not store:
                return beside.add_object(encode(with_contents(snapshot, contents, beside, size)))
            with self._repo.transactions.begin() as transaction:
                kept = with_contents(snapshot, contents, transaction, size)
                identity = transaction.add_object(encode(kept))
                transaction.publish()
                self._repo.hold(identity)
            return identity

        return RepositoryCatalog(
            storage=self._repo.storage,
            objects=self._repo.objects if store else self._repo.objects.and_beside(beside.objects),
            profiles=self._repo.profiles(),
            commit_for=commit_for,
            make_profile=make_profile,
            keep=keep,
            hold=self._repo.hold if store else lambda _: None,
            workforce=self._repo.workforce,
        )

    def holders(self, snapshots: Iterable[ObjectId]) -> dict[ObjectId, Holder]:
        """Which commits hold snapshots, and what they are called."""
        return holders(self._repo.refs, self._repo.objects, snapshots)

    def make_profile(
        self, snapshot: ObjectId, base: ObjectId, progress: Progress, *, store: bool
    ) -> tuple[ObjectId, "Profile"]:
        """A profile that is not known yet; what that reads is counted in `profile_bytes`."""
        from mergepipe.catalog.profiles import Profiles
        from mergepipe.engine.meter import CountingStore, Meter, Source
        from mergepipe.objects.store import ObjectStore
        from mergepipe.packs.blocks import BlockReader
        from mergepipe.packs.storage import Storage

        meter = Meter()
        counted = Storage(
            CountingStore(self._repo.storage.store, meter, Source.METADATA),
            self._repo.storage.index,
        )
        reader = BlockReader(counted)
        maker = Profiles(counted, ObjectStore(counted), reader, self._repo.workforce)
        profile = maker.make(snapshot, base, progress)
        self._repo.profile_bytes += meter.readings().metadata_bytes + maker.worker_bytes
        canonical = encode(profile)
        if store:
            with self._repo.transactions.begin() as transaction:
                transaction.add_object(canonical)
                transaction.publish()
                self._repo.hold(object_id(canonical))
            maker.remember(object_id(canonical), snapshot, base)
        return object_id(canonical), profile

    def _is_path(self, text: str) -> bool:
        """Whether an expert is a file or directory: no revision is called that, but a path is.

        Raises RevisionNotFound if it is neither.
        """
        from mergepipe.api.catalog import as_path, looks_like_path

        if not looks_like_path(text):
            try:
                self._repo.resolve(text)
            except RevisionNotFound:
                if not as_path(text).exists():
                    raise
            else:
                return False
        if not as_path(text).exists():
            raise RevisionNotFound(f"there is no file or directory {quoted(text)}")
        return True

    def _check_inputs(
        self, request: "PlanRequest", method: "Method", store: bool, told: Told
    ) -> None:
        """Every name, and what headers say of paths, before the first import reads anything."""
        from mergepipe.api.catalog import as_path

        named = [*request.experts, *([] if request.base is None else [request.base])]
        paths = [text for text in named if self._is_path(text)]
        for text in paths:
            if as_path(text).suffix in (".yaml", ".yml") and as_path(text).is_file():
                raise UsageError(
                    f"{quoted(text)} is no model", f"a recipe goes in as --recipe {text}"
                )
        if paths and not store:
            raise not_imported(paths[0])
        if paths:
            from mergepipe.api.recipe_models import RecipeModels

            models = RecipeModels(self._repo, self._imports.conversions, Path(), told=told)
            checked = {text: models.check(text) for text in paths}
            # Integers are compared by id, which those that are stored have another one of.
            new = set(models.unknown.values())
            if len(paths) == len(named) and new.issuperset(checked.values()):
                self._check_together(request, method, models, checked)

    def _check_together(
        self,
        request: "PlanRequest",
        method: "Method",
        models: "RecipeModels",
        found: Mapping[str, ObjectId],
    ) -> None:
        """Whether models fit each other that were only looked at, by name."""
        from mergepipe.objects.store import Tensors
        from mergepipe.planner.inputs import expand
        from mergepipe.planner.recipe import Expert, Model, Recipe

        if request.base is None and (method.needs_base or request.allow_missing):
            return  # experts may say what base they have in common, once they are imported
        if not request.experts:
            return
        recipe = Recipe(
            method=method.name,
            experts=tuple(
                Expert(text, found[text], settings)
                for text, settings in zip(
                    request.experts, request.own() or [{}] * len(request.experts), strict=True
                )
            ),
            base=None if request.base is None else Model(request.base, found[request.base]),
            parameters=request.parameters or {},
            dtype=request.dtype(method),
            seed=request.seed,
            allow_missing=request.allow_missing,
        )
        expand(recipe, Tensors(models), models, models.read_file)


def not_imported(text: str) -> UsageError:
    """The error for a path where nothing may be written."""
    return UsageError(
        f"{quoted(text)} is not in the repository, and a dry run imports nothing",
        f"commit it first: mp commit -b NAME {text}",
    )
