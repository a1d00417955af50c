"""The models of a recipe, looked up and taken stock of, each once.

No weight is read: shapes and dtypes are the tensors' own, and of all files only config.json and
adapter_config.json are looked into.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from mergepipe.checkpoints.tokenizers import StoredTokenizer
from mergepipe.dtypes import dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.adapter_config import ADAPTER_CONFIG
from mergepipe.formats.adapters import is_adapter, read_adapter
from mergepipe.formats.architecture import read_architecture
from mergepipe.formats.weight_files import TOP
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.merging import LowRank
from mergepipe.objects.records import Safetensors, Snapshot
from mergepipe.planner.inputs import ObjectSource, Tensors
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.schema import ModelName
from mergepipe.planner.model_files import read_model_files
from mergepipe.planner.recipe import Model


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


class Inventories:
    """Models by name. `stages` are results of earlier stages, which beat what is stored.

    models      every stored model that was asked for, in the order of the first mention
    tokenizers  that were read, by the label of the model
    warnings    what a user should know of the models
    """

    def __init__(self, objects: ObjectSource, tensors: Tensors, source: ModelSource) -> None:
        self.models: list[Model] = []
        self.stages: dict[str, Inventory] = {}
        self.tokenizers: dict[str, StoredTokenizer] = {}
        self.warnings: list[str] = []
        self._objects = objects
        self._tensors = tensors
        self._source = source
        self._known: dict[ModelName, Inventory] = {}
        self._snapshots: dict[ModelName, tuple[int, Snapshot]] = {}

    def find(self, name: ModelName) -> Inventory:
        """The model of this name, with the adapter that it asks for.

        Raises MergeInputError: not there, no tensors, names that come twice, layers that do not fit
        the config, an adapter that does not fit.
        """
        found = self._known.get(name)
        if found is not None:
            return found
        if name.lora is not None:
            found = self._with_adapter(name, name.lora)
        elif name.revision is None and name.path in self.stages:
            return self.stages[name.path]
        else:
            place, snapshot = self._snapshot(name)
            if is_adapter(file.path for file in snapshot.files):
                raise MergeInputError(
                    f"{quoted(str(name))} is an adapter, not a model",
                    f"write model+{name}, or give a method that takes differences a base_model",
                )
            found = self._stored(name, place, snapshot)
        self._known[name] = found
        return found

    def is_adapter(self, name: ModelName) -> bool:
        """Whether a name is that of an adapter by itself."""
        if name.lora is not None or (name.revision is None and name.path in self.stages):
            return False
        return is_adapter(file.path for file in self._snapshot(name)[1].files)

    def adapter_alone(self, name: ModelName, model: Inventory) -> Inventory:
        """An adapter as an input of its own: what it changes of `model`, and nothing else."""
        place, _ = self._snapshot(name)
        changed = self._adapted(model, name)
        alone = {
            tensor: held if held.factors is None else replace(held, source=None, model=place)
            for tensor, held in changed.items()
        }
        return Inventory(
            str(name), place, model.files_of, alone, model.architecture, model.config, True
        )

    def _with_adapter(self, name: ModelName, lora: ModelName) -> Inventory:
        model = self.find(replace(name, lora=None))
        changed = {**model.tensors, **self._adapted(model, lora)}
        return replace(model, label=str(name), tensors=changed)

    def _snapshot(self, name: ModelName) -> tuple[int, Snapshot]:
        found = self._snapshots.get(name)
        if found is None:
            identity = self._source.find(name.path, name.revision)
            known = [model.snapshot for model in self.models]
            if identity not in known:
                self.models.append(Model(str(name), identity))
                known.append(identity)
            found = known.index(identity), self._objects.snapshot(identity)
            self._snapshots[name] = found
        return found

    def _stored(self, name: ModelName, place: int, snapshot: Snapshot) -> Inventory:
        label = str(name)
        files = read_model_files(snapshot, self._tensors.__getitem__, self._source.read_file, label)
        self.warnings += [text for text in files.warnings if text not in self.warnings]
        component = files.components.get(TOP)
        if component is None or len(files.components) > 1:
            directories = [directory for directory in files.components if directory != TOP]
            raise MergeInputError(
                f"{quoted(label)} is a pipeline: {', '.join(directories)} are models of their own",
                "name one of its directories, or merge it without a recipe",
            )
        held: dict[str, Held] = {}
        for one in component.tensors:
            if one.name in held:
                raise MergeInputError(
                    f"{quoted(label)} has two tensors called {quoted(one.name)}",
                    "keep one set of weights: model.safetensors and shards of it are two",
                )
            tensor = self._tensors[one.identity]
            held[one.name] = Held(
                one.identity, one.identity, tensor.shape, dtype_of(tensor.dtype), place
            )
        config = component.config
        return Inventory(label, place, place, held, read_architecture(held, config, label), config)

    def _adapted(self, model: Inventory, name: ModelName) -> dict[str, Held]:
        """The tensors of a model that an adapter changes or replaces, with the change on them."""
        label = str(name)
        place, snapshot = self._snapshot(name)
        settings = self._source.read_file(snapshot, ADAPTER_CONFIG)
        if settings is None:
            raise MergeInputError(
                f"{quoted(label)} is no adapter: it has no {ADAPTER_CONFIG}",
                "model+adapter names a LoRA in the layout of PEFT",
            )
        stored = dict(_listed(snapshot))
        adapter = read_adapter(
            settings,
            {tensor: self._tensors[identity].shape for tensor, identity in stored.items()},
            {tensor: held.shape for tensor, held in model.tensors.items()},
            label,
            model.config,
        )
        changed: dict[str, Held] = {}
        for tensor, own in adapter.replaced.items():
            one = self._tensors[stored[own]]
            changed[tensor] = Held(stored[own], stored[own], one.shape, dtype_of(one.dtype), place)
        for tensor, change in adapter.changes.items():
            factors = LowRank(
                stored[change.up], stored[change.down], change.scale, change.transposed
            )
            under = changed.get(tensor, model.tensors[tensor])
            changed[tensor] = replace(under, factors=factors, adapter=place)
        return changed


def _listed(snapshot: Snapshot) -> Iterator[tuple[str, ObjectId]]:
    for file in snapshot.files:
        if isinstance(file.content, Safetensors):
            for entry in file.content.tensors:
                yield entry.name, entry.tensor
