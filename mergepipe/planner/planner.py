"""`Planner`: revisions in, a plan out. What it knows of a repository is a `Catalog`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from mergepipe.dtypes import DType
from mergepipe.errors import MergeInputError, UsageError
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import registry
from mergepipe.names import quoted
from mergepipe.objects.merging import TermKind
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.packs.choice import Options
from mergepipe.packs.id_arrays import Ids
from mergepipe.packs.only_ways import OnlyWays
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge, build_plan
from mergepipe.planner.checking import check_merge
from mergepipe.planner.inputs import expand
from mergepipe.planner.lines import Merge
from mergepipe.planner.prepared import prepare
from mergepipe.planner.recipe import Expert, Model, Recipe, Setting
from mergepipe.plans.measured import Measure
from mergepipe.plans.profile_views import Cited, Pair, profiled_pairs


class Revision(Struct, frozen=True):
    """A revision that was resolved: the snapshots of its commit and of what it was trained from."""

    label: str
    commit: ObjectId
    snapshot: ObjectId
    base_commit: ObjectId | None
    base_snapshot: ObjectId | None
    kind: TermKind = TermKind.FULL


class Catalog(Protocol):
    """What planning needs to know of a repository."""

    @property
    def objects(self) -> ObjectSource:
        """Snapshots and tensors by id."""
        ...

    @property
    def measure(self) -> Measure | None:
        """For statistics that no profile holds; None where nothing can be measured."""
        ...

    def revision(self, text: str, /) -> Revision:
        """What a revision names. Raises RevisionNotFound, AmbiguousRevision."""
        ...

    def profile(self, snapshot: ObjectId, base: ObjectId, /) -> Cited:
        """The profile of a pair of snapshots, made if need be; None where that is not possible."""
        ...

    def encodings(self, blocks: Iterable[BlockId], /) -> Options:
        """Every encoding of blocks and of what they lean on (`packs.choice.stored_encodings`)."""
        ...

    def only_ways(self, ids: Ids, /) -> OnlyWays:
        """The encoding of each block that has one (`packs.only_ways.only_ways`)."""
        ...

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        """The bytes of a file that holds no tensors; None if the snapshot has none of this path."""
        ...

    def keep(self, snapshot: Snapshot, contents: Mapping[str, bytes], /) -> ObjectId:
        """Make a snapshot of stored tensors known to `objects`; `contents`: of files in it."""
        ...


class Planner:
    """Plans merges of revisions of one repository."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def plan(
        self,
        base: str | None = None,
        experts: Sequence[str] = (),
        method: str = "ties",
        *,
        budget: str | float | Budget | None = None,
        weights: Sequence[float] | None = None,
        densities: Sequence[float] | None = None,
        dtype: DType | None = None,
        seed: int = 0,
        allow_missing: bool = False,
        **parameters: Setting,
    ) -> PlannedMerge:
        """The plan of merging revisions.

        base      a revision; without one, what all experts were trained from, as somebody said
        method    in any case
        budget    of expert bytes, as text or a number (`Budget.parse`)
        weights, densities  one per expert; one for all: among `parameters`

        Raises RevisionNotFound, UsageError, MergeInputError, OverBudget.
        """
        limit = budget if isinstance(budget, Budget) else Budget.parse(budget)
        recipe = self.recipe(
            base,
            experts,
            method,
            own=_own_parameters(len(experts), {"weight": weights, "density": densities}),
            parameters=parameters,
            dtype=dtype,
            seed=seed,
            allow_missing=allow_missing,
        )
        return self.build(recipe, limit)

    def recipe(
        self,
        base: str | None,
        experts: Sequence[str],
        method: str,
        *,
        own: Sequence[Mapping[str, Setting]] | None = None,
        parameters: Mapping[str, Setting] | None = None,
        dtype: DType | None = None,
        seed: int = 0,
        allow_missing: bool = False,
    ) -> Recipe:
        """The recipe that revisions and parameters make. own: parameters per expert."""
        if not experts:
            raise UsageError("no expert is named", "name at least one revision to merge")
        revisions = [self._catalog.revision(text) for text in experts]
        root = self._base(base, revisions, registry.find(method).needs_base)
        return Recipe(
            method=registry.find(method).name,
            experts=tuple(
                Expert(revision.label, revision.snapshot, settings, revision.kind)
                for revision, settings in zip(revisions, own or [{}] * len(revisions), strict=True)
            ),
            base=root,
            parameters=parameters or {},
            dtype=dtype,
            seed=seed,
            allow_missing=allow_missing,
        )

    def build(self, recipe: Recipe, budget: Budget | None = None) -> PlannedMerge:
        """The plan of a recipe."""
        objects = self._catalog.objects
        catalog = self._catalog
        merge = expand(recipe, Tensors(objects), objects, catalog.read_file, catalog.keep)
        return self.build_merge(merge, budget)

    def build_merge(self, merge: Merge, budget: Budget | None = None) -> PlannedMerge:
        """The plan of a merge, spelled out line by line.

        Raises MergeInputError, OverBudget, MissingObject.
        """
        objects = self._catalog.objects
        tensors = Tensors(objects)
        check_merge(merge, tensors, objects)  # making a profile reads both models
        pairs = profiled_pairs(line for _, line in prepare(merge, tensors))
        known: dict[tuple[ObjectId, ObjectId], Cited] = {}
        profiles: dict[Pair, Cited] = {}
        for pair in pairs:
            snapshot, base = (merge.models[place].snapshot for place in pair)
            if snapshot != base:
                if (snapshot, base) not in known:
                    known[snapshot, base] = self._catalog.profile(snapshot, base)
                profiles[pair] = known[snapshot, base]
        return build_plan(
            merge,
            budget or Budget(),
            objects,
            self._catalog,
            profiles,
            self._catalog.measure,
        )

    def _base(self, base: str | None, experts: Sequence[Revision], needed: bool) -> Model | None:
        if base is not None:
            revision = self._catalog.revision(base)
            return Model(revision.label, revision.snapshot)
        # What storage leans a model on by likeness never counts: it may be a sibling.
        commit, snapshot = experts[0].base_commit, experts[0].base_snapshot
        common = all(expert.base_snapshot == snapshot for expert in experts)
        if common and commit is not None and snapshot is not None:
            return Model(commit.hex()[:12], snapshot)
        if not needed:
            return None
        raise _no_common_base(experts)


def _no_common_base(experts: Sequence[Revision]) -> MergeInputError:
    silent = [expert.label for expert in experts if expert.base_commit is None]
    names = " ".join(revision.label for revision in experts)
    if silent:
        which = ", ".join(quoted(label) for label in silent)
        what = f"nobody said what {which} {'was' if len(silent) == 1 else 'were'} trained from"
    else:
        trained = (
            f"{revision.label} from {(revision.base_commit or b'').hex()[:12]}"
            for revision in experts
        )
        what = f"they were trained from different models: {', '.join(trained)}"
    first = (silent or [experts[0].label])[0]
    return MergeInputError(
        f"the experts have no base in common: {what}",
        f"for this merge: mp merge {names} --base REV; for good: "
        f"mp commit PATH -b {first} --base REV, which works for a model that is stored already",
    )


def _own_parameters(
    experts: int, columns: Mapping[str, Sequence[float] | None]
) -> list[dict[str, Setting]]:
    settings_of: list[dict[str, Setting]] = [{} for _ in range(experts)]
    for name, values in columns.items():
        if values is None:
            continue
        if len(values) != experts:
            raise UsageError(
                f"{len(values)} values of {name} for {experts} experts",
                f"give one {name} per expert, or a single one for all",
            )
        for settings, value in zip(settings_of, values, strict=True):
            settings[name] = value
    return settings_of
