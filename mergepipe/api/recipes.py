"""Merging by a recipe of mergekit: the whole way from a YAML file to a plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.api.importing import Imports
from mergepipe.api.merging import Merging
from mergepipe.api.opened import OpenRepository
from mergepipe.api.planning import Planning, Told, not_imported, say_nothing
from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId
from mergepipe.missing_paths import nearest_path
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.packs.sink import ObjectsInMemory, Sink
from mergepipe.progress import SILENT, Progress
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    # Planning brings in numpy; `mp log` must not wait for it.
    from mergepipe.api.recipe_models import RecipeModels
    from mergepipe.formats.model_card import Card
    from mergepipe.planner.budget import Budget
    from mergepipe.planner.build import PlannedMerge
    from mergepipe.planner.lines import Merge
    from mergepipe.planner.mergekit.expanded import Expanded
    from mergepipe.planner.mergekit.schema import MergekitRecipe

_SEEDS = 1 << 63


class RecipeOptions(Struct, frozen=True):
    """What is asked of a merge beside its recipe; see `Repository.plan_recipe`."""

    budget: str | float | None = None
    seed: int = 0
    allow_missing: bool = False
    shard_bytes: int | None = None
    title: str = "Merged model"
    budget_total: str | float | None = None
    max_share: str | float | None = None

    def limits(self) -> "Budget":
        """How much may be read. Raises UsageError."""
        from mergepipe.planner.budget import Budget

        return Budget.asked(self.budget, self.budget_total, self.max_share)

    def over(self, recipe: "MergekitRecipe") -> "RecipeOptions":
        """With what a recipe says of its own budget, where nothing else was asked for."""
        stage = recipe.output
        given = self.budget is not None or self.budget_total is not None
        request = (
            self if given else replace(self, budget=stage.budget, budget_total=stage.budget_total)
        )
        share = stage.max_share if self.max_share is None else self.max_share
        request = replace(request, max_share=share)
        request.limits()
        return request

    def check(self) -> None:
        """Raise UsageError for what makes no sense whatever the recipe is."""
        from mergepipe.formats.shards import cut_into_shards
        from mergepipe.planner.budget import Budget, parse_percent

        Budget.asked(self.budget, self.budget_total)
        if self.max_share is not None:
            parse_percent(self.max_share)
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"{self.seed} is no seed", "any number from 0 to 2^63 - 1 is one")
        if self.shard_bytes is not None:
            cut_into_shards([], self.shard_bytes)


class Recipes:
    """The part of a repository that merges by recipes."""

    def __init__(
        self, opened: OpenRepository, planning: Planning, imports: Imports, merging: Merging
    ) -> None:
        self._repo = opened
        self._planning = planning
        self._imports = imports
        self._merging = merging

    def plan(
        self,
        recipe: str | Path,
        options: RecipeOptions,
        *,
        progress: Progress = SILENT,
        told: Told = say_nothing,
        store: bool = True,
    ) -> "PlannedMerge":
        """The plan of a recipe (`Repository.plan_recipe`)."""
        from mergepipe.api.recipe_embeddings import ForetoldEmbeddings
        from mergepipe.api.recipe_models import RecipeModels
        from mergepipe.planner.mergekit.expand import check, expand
        from mergepipe.plans.left_out import lines

        options.check()
        read, directory = _read(recipe)
        options = options.over(read)
        # Told at once: a key that nobody knows is often why something is missing below.
        for warning in read.warnings:
            told(f"warning: {warning}")
        checked = check(read)
        for warning in checked[len(read.warnings) :]:
            told(f"warning: {warning}")
        models = RecipeModels(
            self._repo,
            self._imports.conversions,
            directory,
            progress=progress,
            told=told,
            store=store,
        )
        foretold = ForetoldEmbeddings(models)
        looked = expand(read, models, models, foretold, allow_missing=options.allow_missing)
        for warning in looked.warnings[len(checked) :]:
            told(f"warning: {warning}")
        # Before anything is imported, which may take hours.
        said = lines(looked.left_out)
        for line in said:
            told(line)
        if not store:
            if models.unknown:
                raise not_imported(str(next(iter(models.unknown))))
            if looked.lays_out:
                raise UsageError(
                    "the recipe has tensors made first (embeddings in new rows, or what a DoRA "
                    "makes of weights), and a dry run makes none",
                    "leave --dry-run out: a plan is stored, and merges nothing yet",
                )
            kept = ObjectsInMemory()
            merge = self._laid_out(read, looked, models, options, kept)
            return self._planned(merge, options, kept.objects, progress, told, store=False)
        if not (models.unknown or looked.lays_out or looked.apart):
            with self._repo.transactions.begin() as transaction:
                merge = self._laid_out(read, looked, models, options, transaction)
                transaction.publish()
            return self._planned(merge, options, {}, progress, told, store=True)
        # What is stored only now has other ids, and may have shared tensors.
        imported = self._import(models, looked, progress, told)
        stages: dict[str, ObjectId] = {}
        for name in looked.apart:
            stage_request = _for_stage(read, name, stages)
            planned = self._plan_stored(
                stage_request, directory, imported, stages, options, progress, told
            )
            stages[name] = self._stage(stage_request, planned, progress)
            told(f"stage {quoted(name)} is merged first, because a later one moves its rows")
        read = _for_stage(read, read.output.name, stages)
        planned = self._plan_stored(read, directory, imported, stages, options, progress, told)
        # Which tensors are copies of others is only known by what is stored.
        for line in lines(planned.left_out):
            if line not in said:
                told(line)
        return planned

    def _import(
        self, models: "RecipeModels", looked: "Expanded", progress: Progress, told: Told
    ) -> dict[Path, ObjectId]:
        """Store the directories that a recipe names, the base first: the others lean on it."""
        from mergepipe.formats.adapters import is_adapter

        snapshots: dict[Path, ObjectId] = {}
        base = None if looked.base is None else looked.models[looked.base].snapshot
        leaning = None if base is None else models.commits.get(base)
        for location, identity in sorted(models.unknown.items(), key=lambda one: one[1] != base):
            adapter = is_adapter(file.path for file in models.snapshot(identity).files)
            under = None if adapter or leaning is None else leaning.hex()
            commit, read = self._imports.import_path(location, base=under, progress=progress)
            snapshots[location] = commit
            if identity == base:
                leaning = commit
            if read:
                self._repo.imported_bytes += read
                told(f"imported {escape_for_terminal(str(location))}: {format_size(read)} read")
        return snapshots

    def _plan_stored(
        self,
        recipe: "MergekitRecipe",
        directory: Path,
        imported: Mapping[Path, ObjectId],
        stages: Mapping[str, ObjectId],
        options: RecipeOptions,
        progress: Progress,
        told: Told,
    ) -> "PlannedMerge":
        """Plan once every model is stored; what the merge needs beside them is stored too."""
        from mergepipe.api.recipe_embeddings import StoredEmbeddings
        from mergepipe.api.recipe_models import RecipeModels
        from mergepipe.planner.mergekit.expand import expand

        with self._repo.transactions.begin() as transaction:
            models = RecipeModels(
                self._repo, self._imports.conversions, directory, imported, stages
            )
            embeddings = StoredEmbeddings(self._repo, models, transaction)
            expanded = expand(
                recipe, models, models, embeddings, allow_missing=options.allow_missing
            )
            merge = self._laid_out(recipe, expanded, models, options, transaction)
            transaction.publish()
        if embeddings.read_bytes:
            size = format_size(embeddings.read_bytes)
            told(f"tensors made first (embeddings, adapters): {size} read")
        return self._planned(merge, options, {}, progress, told, store=True)

    def _stage(
        self, recipe: "MergekitRecipe", planned: "PlannedMerge", progress: Progress
    ) -> ObjectId:
        """The commit of a stage that is merged by itself, kept like an import.

        The same stage of the same models is not committed twice.
        """
        from mergepipe.checkpoints.imports import stage_ref
        from mergepipe.engine.transactions import MergeRequest

        name = recipe.output.name or ""
        ref = stage_ref(name, planned.id)
        known = self._repo.refs.read(ref)
        if known is not None:
            return known
        plan = self._planning.load_plan(planned)
        base, experts = self._merging.input_commits(plan)
        request = MergeRequest(
            base=base,
            experts=experts,
            branch=ref,
            message=f"Stage {name} of a recipe",
            names=self._merging.model_names(planned, plan),
        )
        return self._merging.engine().execute(plan, request, progress=progress).commit

    def _planned(
        self,
        merge: "Merge",
        options: RecipeOptions,
        kept: Mapping[ObjectId, bytes],
        progress: Progress,
        told: Told,
        *,
        store: bool,
    ) -> "PlannedMerge":
        from mergepipe.planner.planner import Planner

        catalog = self._planning.catalog_with(None, progress, told, store)
        if kept:
            catalog = replace(catalog, objects=self._repo.objects.and_beside(kept))
        planned = Planner(catalog).build_merge(merge, options.limits())
        if store:
            self._planning.remember(planned)
        return planned

    def _laid_out(
        self,
        recipe: "MergekitRecipe",
        expanded: "Expanded",
        models: "RecipeModels",
        options: RecipeOptions,
        sink: "Sink",
    ) -> "Merge":
        """The merge with the files of its output, which are written into `sink`."""
        from mergepipe.checkpoints.layouts import LaidTensor, write_layout
        from mergepipe.dtypes import byte_length
        from mergepipe.formats.shards import SHARD_BYTES
        from mergepipe.objects.encoding import decode
        from mergepipe.objects.records import Snapshot, Tensor
        from mergepipe.planner.mergekit.output_files import files_beside

        def tensor(identity: ObjectId) -> Tensor:
            pending = sink.pending_object(identity)
            if pending is not None:
                return decode(pending, Tensor, "a tensor laid out anew")
            return models.tensor(identity)

        of = expanded.models[expanded.output.files_of]
        vocabulary = models.tokenizer(of.snapshot, of.label).vocabulary
        beside = files_beside(
            expanded, vocabulary, models, _card(recipe, expanded, models, options)
        )
        stem = expanded.like.sorted.stem
        laid = [
            LaidTensor(line.name, line.like, tensor(line.like), stem(line.file or ""))
            for line in expanded.written
        ]
        identity = write_layout(
            laid,
            beside.made,
            beside.carried,
            sink,
            block_size=self._repo.config.store.block_size,
            shard_bytes=options.shard_bytes or SHARD_BYTES,
            sizes=[
                byte_length(line.dtype, one.stored.shape)
                for line, one in zip(expanded.written, laid, strict=True)
            ],
        )
        pending = sink.pending_object(identity)
        layout = (
            models.snapshot(identity)
            if pending is None
            else decode(pending, Snapshot, "the layout of a merge")
        )
        return expanded.laid_out(layout, identity, options.seed, tensor)


def _read(recipe: str | Path) -> "tuple[MergekitRecipe, Path]":
    """A recipe from a file or from text, and where its paths begin."""
    from mergepipe.planner.mergekit.document import MAX_BYTES
    from mergepipe.planner.mergekit.reading import read_recipe

    if isinstance(recipe, str) and "\n" in recipe:
        return read_recipe(recipe), Path()
    path = Path(recipe).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        wanted = "a recipe is a YAML file, as mergekit takes it (docs/mergekit.md)"
        raise UsageError(
            f"{quoted(str(recipe))} cannot be read: {error.strerror}",
            nearest_path(path, wanted) if isinstance(error, FileNotFoundError) else wanted,
        ) from error
    return read_recipe(content, path.name), path.parent


def _for_stage(
    recipe: "MergekitRecipe", name: str | None, stored: Mapping[str, ObjectId]
) -> "MergekitRecipe":
    """The recipe for one of its stages, where the results of others are stored already."""
    from mergepipe.planner.mergekit.stages import stages_for

    output = next(stage for stage in recipe.stages if stage.name == name)
    return recipe.with_stages(stages_for(output, recipe.stages, stored))


def _card(
    recipe: "MergekitRecipe", expanded: "Expanded", models: "RecipeModels", options: RecipeOptions
) -> "Card":
    from mergepipe.formats.model_card import Card, CardInput

    inputs = []
    for place, model in enumerate(expanded.models):
        commit = models.commits.get(model.snapshot)
        inputs.append(
            CardInput(
                model.label,
                "base" if place == expanded.base else "input",
                None if commit is None else commit.hex(),
            )
        )
    methods = list(dict.fromkeys(stage.method for stage in recipe.stages))
    asked = options.budget if options.budget is not None else options.budget_total
    budget = None if asked is None else str(asked)
    return Card(options.title, methods, inputs, budget, recipe.text)
