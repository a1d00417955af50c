"""One stage of a recipe spelled out: its models in one vocabulary, a line for each tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import read_architecture, with_modules
from mergepipe.formats.weight_files import TOP
from mergepipe.methods import registry
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.planner.lines import Line, Made
from mergepipe.planner.mergekit.alignment import align
from mergepipe.planner.mergekit.inventories import Inventories
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.output_config import moved_layers, output_config, output_generation
from mergepipe.planner.mergekit.row_lines import RowLines, like
from mergepipe.planner.mergekit.rows import Row
from mergepipe.planner.mergekit.schema import ModelName, Stage
from mergepipe.planner.mergekit.stage_vocabulary import (
    Embeddings,
    StageVocabulary,
    bring_together,
    lending,
)
from mergepipe.planner.mergekit.stray_buffers import without_stray_buffers
from mergepipe.planner.mergekit.unused_tensors import unused_tensors
from mergepipe.planner.name_matching import nothing_in_common
from mergepipe.plans.left_out import LeftOut
from mergepipe.vocabularies import StoredTokenizer


class StageLines:
    """One stage being made into lines, which are appended to `lines`."""

    def __init__(
        self,
        stage: Stage,
        source: str,
        inventories: Inventories,
        embeddings: Embeddings,
        lines: list[Line],
        allow_missing: bool,
    ) -> None:
        self._stage = stage
        self._source = source
        self._inventories = inventories
        self._embeddings = embeddings
        self._lines = lines
        self._allow_missing = allow_missing
        self._method = method_of(stage, source)
        self.reference: Inventory
        self.vocabulary: StageVocabulary
        self.base_place: int | None = None
        self.left_out: tuple[LeftOut, ...] = ()
        self._notes: tuple[str, ...] = ()

    def run(self, *, last: bool) -> Inventory:
        """Make the stage into lines; returns its result as a model. `last`: it is the output."""
        stage = self._stage
        self.vocabulary = self._vocabulary()
        models, buffers = without_stray_buffers(self.vocabulary.inventories)
        modules = [module for module in stage.modules if module is not None]
        self._models = {name: _split(model, modules) for name, model in models.items()}
        aligned = align(
            stage, self._method, self._find, self._source, allow_missing=self._allow_missing
        )
        place = f"{self._source}, line {stage.place.line}"
        notes = (f"{place}: {note}" for note in aligned.notes)
        rows, self._notes = aligned.rows, (*notes, *aligned.warnings)
        self._check_common(rows)
        self.left_out = (*self.vocabulary.plan.left_out, *buffers, *aligned.left_out)
        self.left_out += tuple(unused_tensors(self._models.values(), rows, self.left_out))
        self.reference = rows[0].origin[0]
        if stage.base is not None:
            number = self._inventory(stage.base, None).place
            self.base_place = number if number >= 0 else None
        directory = self._inventories.component if last else None
        making = RowLines(stage, self._method, self._source, directory)
        held: dict[str, Held] = {}
        for row in rows:
            if row.name in held:
                raise making.error(row, "is made twice")
            line = making.line(row)
            held[row.name] = self._made(row, line)
            self._lines.append(line)
        config, generation = self._configs(rows, held)
        label = stage.name or "the result"
        return Inventory(
            label=label,
            place=-1,
            files_of=self.reference.files_of,
            tensors=held,
            architecture=read_architecture(held, config, label),
            config=config,
            generation=generation,
            moved=moved_layers(self.reference, rows),
        )

    def _made(self, row: Row, line: Line) -> Held:
        """What a later stage takes in: a tensor that is only copied is the stored one."""
        shape = like(row).shape
        if line.copied:
            term = line.inputs[0]
            return Held(
                source=term.source, like=line.like, shape=shape, dtype=line.dtype, model=term.model
            )
        return Held(
            source=Made(len(self._lines)), like=line.like, shape=shape, dtype=line.dtype, model=-1
        )

    def _configs(
        self, rows: Sequence[Row], held: Mapping[str, Held]
    ) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        try:
            config = output_config(self.reference, rows, held)
            return config, output_generation(self.reference, rows)
        except MergeInputError as error:
            raise MergeInputError(
                f"{self._source}, line {self._stage.place.line}: {error.message}", error.hint
            ) from error

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of this stage."""
        return self._notes + tuple(
            f"{self._source}, line {self._stage.place.line}: {note}"
            for note in self.vocabulary.plan.notes
        )

    def _vocabulary(self) -> StageVocabulary:
        """The models of the stage in the rows of one vocabulary."""
        stage = self._stage
        models = {name: self._inventory(name, stage.base) for name in stage.models}
        lenders = {name: self._inventory(name, stage.base) for name in lending(stage)}
        try:
            tokenizers = {
                inventory.label: self._tokenizer(inventory)
                for inventory in (*models.values(), *lenders.values())
            }
            return bring_together(stage, models, lenders, tokenizers, self._embeddings)
        except MergeInputError as error:
            place = stage.place if stage.tokenizer is None else stage.tokenizer.place
            raise MergeInputError(
                f"{self._source}, line {place.line}: {error.message}", error.hint
            ) from error

    def _tokenizer(self, inventory: Inventory) -> StoredTokenizer:
        if self._inventories.component != TOP:
            return StoredTokenizer()  # it belongs to the model in the top directory
        known = self._inventories.tokenizers.get(inventory.label)
        if known is None:
            snapshot = self._inventories.models[inventory.files_of].snapshot
            known = self._embeddings.tokenizer(snapshot, inventory.label)
            self._inventories.tokenizers[inventory.label] = known
        return known

    def _check_common(self, rows: Sequence[Row]) -> None:
        """Refuse a model that nothing is taken of where it was to be merged."""
        cells = [cell for row in rows for cell in row.cells]
        taken = {cell.inventory.label for cell in cells if cell.held is not None}
        for label in dict.fromkeys(cell.inventory.label for cell in cells):
            if label not in taken:
                error = nothing_in_common(label, rows[0].origin[0].label)
                raise MergeInputError(
                    f"{self._source}, line {self._stage.place.line}: {error.message}", error.hint
                )

    def place_of(self, name: ModelName) -> int:
        """The place of the stored model whose files one of the stage's models has."""
        return self._inventory(name, self._stage.base).files_of

    def _find(self, name: ModelName, base: ModelName | None) -> Inventory:
        return self._models[name]

    def _inventory(self, name: ModelName, base: ModelName | None) -> Inventory:
        try:
            if not self._inventories.is_adapter(name):
                return self._inventories.find(name)
            if base is None or base == name:
                raise MergeInputError(
                    f"{quoted(str(name))} is an adapter, and there is no base_model",
                    f"name the model that it changes: model+{name}, or base_model",
                )
            return self._inventories.adapter_alone(name, self._inventory(base, None))
        except MergeInputError as error:
            raise MergeInputError(
                f"{self._source}, line {name.place.line}: {error.message}", error.hint
            ) from error


def method_of(stage: Stage, source: str) -> Method:
    """The method of a stage. Raises MergeInputError with the line for one that nobody has."""
    try:
        return registry.find(stage.method)
    except MergeInputError as error:
        raise MergeInputError(
            f"{source}, line {stage.place.line}: {error.message}", error.hint
        ) from error


def _split(model: Inventory, modules: Sequence[str]) -> Inventory:
    """The model with the modules that a recipe names."""
    architecture = with_modules(model.architecture, modules)
    if architecture.modules == model.architecture.modules:
        return model
    return replace(model, architecture=architecture)
