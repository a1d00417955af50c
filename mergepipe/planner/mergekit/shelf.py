"""The stored models that a recipe names, each looked up and sorted into components once."""

from collections.abc import Iterator
from typing import Protocol

from mergepipe.errors import MergeInputError
from mergepipe.formats.adapters import is_adapter
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.planner.adapter_directories import check_adapter
from mergepipe.planner.mergekit.schema import MergekitRecipe, ModelName
from mergepipe.planner.model_files import Component, ModelFiles, read_model_files
from mergepipe.planner.recipe import Model
from mergepipe.planner.unmerged_files import OtherModel
from mergepipe.plans.left_out import LeftOut


class ModelSource(Protocol):
    """Where the models that a recipe names come from."""

    def find(self, path: str, revision: str | None, /) -> ObjectId:
        """The snapshot of a model: a revision of the repository first, then a path.

        Raises MergeInputError for one that is neither.
        """
        ...

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        """The bytes of a file that is no safetensors file; None if the snapshot has none."""
        ...


class Shelf:
    """Stored models by name.

    models    every one that was asked for, in the order of the first mention
    left_out  of their files, what is no part of them
    """

    def __init__(self, objects: ObjectSource, source: ModelSource) -> None:
        self.models: list[Model] = []
        self.left_out: list[LeftOut] = []
        self.tensors = Tensors(objects)
        self._objects = objects
        self._source = source
        self._snapshots: dict[ModelName, tuple[int, Snapshot]] = {}
        self._files: dict[int, ModelFiles] = {}

    def snapshot(self, name: ModelName) -> tuple[int, Snapshot]:
        """A model's place among all, and its files."""
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            identity = self._source.find(name.path, name.revision)
            known = [model.snapshot for model in self.models]
            if identity not in known:
                self.models.append(Model(str(name), identity))
                known.append(identity)
            snapshot = known.index(identity), self._objects.snapshot(identity)
            self._snapshots[name] = snapshot
        return snapshot

    def is_adapter(self, name: ModelName) -> bool:
        """Whether this is an adapter by itself. Raises MergeInputError for one among weights."""
        snapshot = self.snapshot(name)[1]
        is_one = is_adapter(file.path for file in snapshot.files)
        if is_one:
            check_adapter(snapshot, str(name))
        return is_one

    def read_file(self, snapshot: Snapshot, path: str) -> bytes | None:
        """The bytes of a small file; None if there is none."""
        return self._source.read_file(snapshot, path)

    def files(self, name: ModelName) -> ModelFiles:
        """A model's components. Raises MergeInputError where it has no weights that can be read."""
        place, snapshot = self.snapshot(name)
        files = self._files.get(place)
        if files is None:
            files = read_model_files(snapshot, self.tensors.__getitem__, self.read_file, str(name))
            self._files[place] = files
            self.left_out += files.left_out
        return files

    def files_at(self, place: int) -> ModelFiles:
        """The files of a model that was looked at, by its place."""
        return self._files[place]

    @property
    def others(self) -> Iterator[tuple[int, OtherModel]]:
        """Every model and adapter that was looked at, with its place."""
        for place, model in enumerate(self.models):
            files = self._files.get(place)
            if files is not None:
                yield place, OtherModel.of(files)
            else:
                snapshot = self._objects.snapshot(model.snapshot)
                yield place, OtherModel(model.label, snapshot, snapshot.files, {})

    def component(self, name: ModelName, directory: str) -> Component:
        """One of a model's components. Raises MergeInputError where the model lacks it."""
        files = self.files(name)
        paths = files.components.get(directory)
        if paths is None:
            have = ", ".join(quoted(folder or "the top directory") for folder in files.components)
            raise MergeInputError(
                f"{quoted(str(name))} has no weights in {quoted(directory or 'its top directory')},"
                f" as other models of the recipe have; it has them in {have}",
                "merge models of one kind, or name the directories of theirs that fit each other",
            )
        return paths

    def directories(self, recipe: MergekitRecipe) -> tuple[str, ...]:
        """The components of all models of a recipe, in the order of their directories.

        Raises MergeInputError naming the recipe's line.
        """
        stages = {stage.name for stage in recipe.stages}
        names: set[str] = set()
        for stage in recipe.stages:
            for name in stage.models:
                if name.revision is None and name.path in stages:
                    continue
                plain = ModelName(name.path, name.revision)
                try:
                    if not self.is_adapter(plain):
                        names |= set(self.files(plain).components)
                    if name.lora is not None:
                        self.snapshot(name.lora)
                except MergeInputError as error:
                    raise MergeInputError(
                        f"{recipe.source}, line {name.place.line}: {error.message}", error.hint
                    ) from error
        return tuple(sorted(names))
