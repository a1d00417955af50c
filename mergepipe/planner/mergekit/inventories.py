"""The models of a recipe, looked up and taken stock of, each once.

No weight is read: shapes and dtypes are the tensors' own, and of all files only config.json,
generation_config.json and adapter_config.json are looked into.
"""

from collections.abc import Sequence
from dataclasses import replace

from mergepipe.dtypes import F32, dtype_of
from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.formats.architecture import read_architecture
from mergepipe.formats.config_json import Config, parse_config
from mergepipe.formats.generation_layers import GENERATION_CONFIG
from mergepipe.formats.weight_files import TOP
from mergepipe.names import quoted
from mergepipe.planner.mergekit.adapted_models import AdaptedModels
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.schema import ModelName
from mergepipe.planner.mergekit.shared_embeddings import with_tensors, without_copied_head
from mergepipe.planner.mergekit.shelf import Shelf
from mergepipe.planner.mergekit.stage_vocabulary import Embeddings
from mergepipe.planner.recipe import Model
from mergepipe.plans.left_out import Kind, LeftOut, of_names
from mergepipe.vocabularies import StoredTokenizer


class Inventories:
    """Models by name. `stages` are results of earlier stages, which beat what is stored.

    component   the directory of the component that they are of
    tokenizers  that were read, by the label of the model
    """

    def __init__(self, shelf: Shelf, component: str, embeddings: Embeddings) -> None:
        self.component = component
        self.stages: dict[str, Inventory] = {}
        self.tokenizers: dict[str, StoredTokenizer] = {}
        self._copies: list[LeftOut] = []
        self._adapters = AdaptedModels(shelf, embeddings)
        self._shelf = shelf
        self._tensors = shelf.tensors
        self._known: dict[ModelName, Inventory] = {}

    @property
    def adapts(self) -> bool:
        """Whether adapters had tensors made first."""
        return self._adapters.made

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What is no tensor of its own in them, and what is no part of their adapters."""
        return (*self._copies, *self._adapters.left_out)

    @property
    def models(self) -> Sequence[Model]:
        """Every stored model that was asked for, in the order of the first mention."""
        return self._shelf.models

    def find(self, name: ModelName) -> Inventory:
        """The model of this name, with the adapter that it asks for.

        Raises MergeInputError: not there, no tensors, names that come twice, layers that do not fit
        the config, an adapter that does not fit.
        """
        inventory = self._known.get(name)
        if inventory is not None:
            return inventory
        if name.lora is not None:
            inventory = self._with_adapter(name, name.lora)
        elif name.revision is None and name.path in self.stages:
            return self.stages[name.path]
        else:
            if self._shelf.is_adapter(name):
                raise MergeInputError(
                    f"{quoted(str(name))} is an adapter, not a model",
                    f"write model+{name}, or give a method that takes differences a base_model",
                )
            inventory = self._stored(name)
        self._known[name] = inventory
        return inventory

    def is_adapter(self, name: ModelName) -> bool:
        """Whether a name is that of an adapter by itself."""
        if name.lora is not None or (name.revision is None and name.path in self.stages):
            return False
        return self._shelf.is_adapter(name)

    def adapter_alone(self, name: ModelName, model: Inventory) -> Inventory:
        """An adapter as an input of its own: what it changes of `model`, and nothing else."""
        place, _ = self._shelf.snapshot(name)
        changed = self._adapters.changed(model, name)
        alone = {
            tensor: held if held.factors is None else replace(held, source=None, model=place)
            for tensor, held in changed.items()
        }
        architecture = with_tensors(model, changed).architecture
        return Inventory(
            label=str(name),
            place=place,
            files_of=model.files_of,
            tensors=alone,
            architecture=architecture,
            config=model.config,
            changes_only=True,
        )

    def _with_adapter(self, name: ModelName, lora: ModelName) -> Inventory:
        model = self.find(replace(name, lora=None))
        return replace(with_tensors(model, self._adapters.changed(model, lora)), label=str(name))

    def _stored(self, name: ModelName) -> Inventory:
        place, _ = self._shelf.snapshot(name)
        component = self._shelf.component(name, self.component)
        label = str(name)
        if self.component != TOP:
            label += "/" + self.component[:-1]
        held: dict[str, Held] = {}
        for entry in component.tensors:
            if entry.name in held:
                raise MergeInputError(
                    f"{quoted(label)} has two tensors called {quoted(entry.name)}",
                    "keep one set of weights: model.safetensors and shards of it are two",
                )
            tensor = self._tensors[entry.identity]
            dtype = dtype_of(tensor.dtype)
            if component.dtype is not None and dtype == F32:
                dtype = component.dtype
            held[entry.name] = Held(
                source=entry.identity,
                like=entry.identity,
                shape=tensor.shape,
                dtype=dtype,
                model=place,
            )
        config = component.config
        architecture = read_architecture(held, config, label)
        inventory = Inventory(
            label=label,
            place=place,
            files_of=place,
            tensors=held,
            architecture=architecture,
            config=config,
            generation=self._generation(name),
        )
        single = without_copied_head(inventory)
        copies = [tensor for tensor in held if tensor not in single.tensors]
        self._copies += of_names(Kind.COPIED_HEAD, label, copies)
        return single

    def _generation(self, name: ModelName) -> Config | None:
        _, snapshot = self._shelf.snapshot(name)
        content = self._shelf.read_file(snapshot, self.component + GENERATION_CONFIG)
        try:
            return None if content is None else parse_config(content, GENERATION_CONFIG)
        except MalformedFile:
            return None  # refused where a result takes it over (output_files)
