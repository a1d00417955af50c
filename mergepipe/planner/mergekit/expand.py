"""A recipe spelled out: every tensor of every stage as a line, down to what is stored.

Stages are not merges of their own: what one makes is an input of the next (`lines.Made`), and is
never written. No weight is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mergepipe.checkpoints.tokenizers import StoredTokenizer
from mergepipe.dtypes import DType
from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import (
    head_and_embeddings,
    is_vocabulary,
    read_architecture,
    with_modules,
)
from mergepipe.formats.config_json import LayerOrigin, amended, layer_count, restacked
from mergepipe.formats.model_card import CARD_NAME
from mergepipe.formats.weight_files import TOP
from mergepipe.methods import registry
from mergepipe.methods.parameters import Settings
from mergepipe.methods.passthrough import PASSTHROUGH
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.objects.merging import TermKind
from mergepipe.planner.inputs import ObjectSource
from mergepipe.planner.left_out import Kind, LeftOut, collected, of_names
from mergepipe.planner.lines import Line, LineInput, Made, unused_base
from mergepipe.planner.mergekit.alignment import Cell, Row, align
from mergepipe.planner.mergekit.components import left_alone, of_component
from mergepipe.planner.mergekit.expanded import Expanded
from mergepipe.planner.mergekit.fields import Notes
from mergepipe.planner.mergekit.inventories import Inventories
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.promotion import promoted
from mergepipe.planner.mergekit.schema import MergekitRecipe, ModelName, Stage
from mergepipe.planner.mergekit.settings import (
    InputLevels,
    check_names,
    check_values,
    settings_for,
)
from mergepipe.planner.mergekit.shared_embeddings import lacks_head
from mergepipe.planner.mergekit.shelf import ModelSource, Shelf
from mergepipe.planner.mergekit.stray_buffers import without_stray_buffers
from mergepipe.planner.mergekit.unused_tensors import unused_tensors
from mergepipe.planner.mergekit.vocabularies import (
    Embeddings,
    StageVocabulary,
    bring_together,
    lending,
)
from mergepipe.planner.unmerged_files import unmerged_files


def check(recipe: MergekitRecipe) -> tuple[str, ...]:
    """Refuse what is wrong whatever the models are; returns warnings.

    Raises MergeInputError: no such method, values that a parameter may not have, a dtype that the
    method cannot compute.
    """
    notes = Notes(recipe.source)
    for stage in recipe.stages:
        method = _method(stage, recipe.source)
        for dtype in (stage.dtype, stage.out_dtype):
            if dtype is not None and not method.accepts(dtype):
                raise MergeInputError(
                    f"{recipe.source}: method {method.name} cannot compute {dtype}",
                    "choose a float dtype, such as bfloat16, float16 or float32",
                )
        levels = [stage.parameters]
        for module in stage.modules.values():
            levels.append(module.parameters)
            for part in module.slices:
                levels += [part.parameters, *(one.parameters for one in part.sources)]
        for level in levels:
            check_values(method, level, recipe.source)
        check_names(method, stage, notes)
    return (*recipe.warnings, *notes.warnings)


def expand(
    recipe: MergekitRecipe,
    objects: ObjectSource,
    source: ModelSource,
    embeddings: Embeddings,
    *,
    allow_missing: bool = False,
) -> Expanded:
    """Every line of a recipe.

    allow_missing  tensors that a model lacks count as the base's; those only it has are left out

    Raises MergeInputError naming the recipe's line, a model and a tensor, for all that does not
    fit; nothing was read then but names, shapes and configs.
    """
    warnings = check(recipe)
    shelf = Shelf(objects, source)
    lines: list[Line] = []
    directories = shelf.directories(recipe)
    left_out = list(left_alone(recipe, directories))
    parts: dict[str, _Part] = {}
    for directory in directories:
        component = of_component(recipe, directory, shelf, alone=TOP not in directories)
        part = _Part(component, Inventories(shelf, directory), embeddings, lines)
        part.run(allow_missing)
        parts[directory] = part
        warnings += tuple(text for text in part.warnings if text not in warnings)
    main = parts[TOP if TOP in parts else directories[0]]
    left_out += shelf.left_out
    left_out += (one for part in parts.values() for one in part.left_out)
    left_out += unused_base(shelf.models, lines, main.last.base_place)
    left_out += _files_left_out(main, shelf, recipe)
    left_out += (LeftOut(Kind.STAGES, name) for name in recipe.unused)
    return Expanded(
        tuple(shelf.models),
        tuple(lines),
        main.output,
        main.last.base_place,
        main.last.vocabulary.plan,
        main.last.vocabulary.tokenizer,
        warnings,
        any(part.lays_out for part in parts.values()),
        {directory: part.output for directory, part in parts.items()},
        shelf.files_at(main.output.files_of),
        collected(left_out),
    )


def _files_left_out(main: "_Part", shelf: Shelf, recipe: MergekitRecipe) -> Iterator[LeftOut]:
    """What the result does not take over of the files beside its models' weights."""
    vocabulary, reference = main.last.vocabulary, shelf.files_at(main.output.files_of)
    tokenizer = None
    if vocabulary.plan.files is None:
        tokenizer = shelf.files_at(main.last.place_of(vocabulary.origin))
    stacked = any(not module.whole for stage in recipe.stages for module in stage.modules.values())
    for place, other in shelf.others:
        card = [file.path for file in other.snapshot.files if file.path == CARD_NAME]
        yield from of_names(Kind.CARD, other.label, card)
        if place != main.output.files_of:
            yield from unmerged_files(
                reference, other, shelf.read_file, tokenizer=tokenizer, stacked=stacked
            )


class _Part:
    """A recipe's stages over one component of its models; lines are appended to `lines`."""

    def __init__(
        self,
        recipe: MergekitRecipe,
        inventories: Inventories,
        embeddings: Embeddings,
        lines: list[Line],
    ) -> None:
        self.warnings: tuple[str, ...] = ()
        self.left_out: tuple[LeftOut, ...] = ()
        self.lays_out = False
        self.output: Inventory
        self.last: _Stage
        self._recipe = recipe
        self._inventories = inventories
        self._embeddings = embeddings
        self._lines = lines

    def run(self, allow_missing: bool) -> None:
        """Make every stage into lines."""
        recipe, inventories = self._recipe, self._inventories
        for stage in recipe.stages:
            made = _Stage(
                stage, recipe.source, inventories, self._embeddings, self._lines, allow_missing
            )
            self.output = made.run(last=stage is recipe.output)
            self.warnings += made.warnings
            self.left_out += made.left_out
            self.lays_out |= made.vocabulary.plan.lays_out
            if stage.name is not None:
                inventories.stages[stage.name] = self.output
                inventories.tokenizers[self.output.label] = made.vocabulary.tokenizer
            self.last = made
        self.left_out += tuple(inventories.left_out)


def _method(stage: Stage, source: str) -> Method:
    try:
        return registry.find(stage.method)
    except MergeInputError as error:
        raise MergeInputError(
            f"{source}, line {stage.place.line}: {error.message}", error.hint
        ) from error


class _Stage:
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
        self._method = _method(stage, source)
        self.reference: Inventory
        self.vocabulary: StageVocabulary
        self.base_place: int | None = None
        self.left_out: tuple[LeftOut, ...] = ()
        self._notes: tuple[str, ...] = ()

    def run(self, *, last: bool) -> Inventory:
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
        self.left_out = (*self.vocabulary.plan.left_out, *buffers, *aligned.left_out)
        self.left_out += tuple(unused_tensors(self._models.values(), rows, self.left_out))
        self.reference = rows[0].origin[0]
        if stage.base is not None:
            number = self._inventory(stage.base, None).place
            self.base_place = number if number >= 0 else None
        held: dict[str, Held] = {}
        for row in rows:
            if row.name in held:
                raise self._error(row, "is made twice")
            line = self._line(row, last=last)
            held[row.name] = self._made(row, line)
            self._lines.append(line)
        config = self._config(rows, held)
        label = stage.name or "the result"
        return Inventory(
            label,
            -1,
            self.reference.files_of,
            held,
            read_architecture(held, config, label),
            config,
        )

    def _made(self, row: Row, line: Line) -> Held:
        """What a later stage takes in: a tensor that is only copied is the stored one."""
        shape = self._like(row).shape
        if line.copied:
            one = line.inputs[0]
            return Held(one.source, line.like, shape, line.dtype, one.model)
        return Held(Made(len(self._lines)), line.like, shape, line.dtype, -1)

    @property
    def warnings(self) -> tuple[str, ...]:
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

    def _line(self, row: Row, *, last: bool) -> Line:
        self._check_shapes(row)
        copied = self._copied(row)
        inputs = tuple(self._input(cell, row.base) for cell in row.cells)
        method, settings = self._settings(row)
        base = None if row.base is None or row.base.held is None else _plain(row.base.held)
        # Random masks are drawn by name: those of two stages shall not be the same.
        name = row.name if last else f"{self._stage.name}:{row.name}"
        return Line(
            self._inventories.component if last else None,
            name,
            self._like(row).like,
            copied.dtype if copied is not None else self._dtype(row),
            method.variant(settings, base=base is not None),
            settings,
            base,
            inputs if copied is None else (_plain(copied),),
            copied is not None,
        )

    def _settings(self, row: Row) -> tuple[Method, Settings]:
        """How a row is made: by the stage's method, or taken as it is."""
        if row.alone:
            return PASSTHROUGH, PASSTHROUGH.settings({}, [{}])
        settings = settings_for(
            self._method,
            row.shared,
            [InputLevels(cell.inventory.label, cell.name, cell.own) for cell in row.cells],
            row.name,
            row.position,
            self._source,
        )
        return self._method, settings

    def _input(self, cell: Cell, base: Cell | None) -> LineInput:
        held = cell.held
        if held is None:
            return LineInput(cell.inventory.place, None)
        if held.source is None:
            return LineInput(held.adapter, None, TermKind.LOW_RANK, held.factors)
        under = None if base is None else base.held
        if (
            held.factors is not None
            and under is not None
            and under.factors is None
            and under.source == held.source
        ):
            # An adapter on the base itself: the difference is the adapter, and its bytes are few.
            return LineInput(held.adapter, None, TermKind.LOW_RANK, held.factors)
        return _plain(held)

    def _copied(self, row: Row) -> Held | None:
        """The tensor to be copied where there is no arithmetic in its dtype; else None."""
        everyone = [cell for cell in (*row.cells, row.base) if cell is not None and cell.held]
        held = [cell.held for cell in everyone if cell.held is not None]
        odd = [cell for cell, one in zip(everyone, held, strict=True)
               if not self._method.accepts(one.dtype)]  # fmt: skip
        if not odd:
            return None
        if any(one.source != held[0].source or one.factors is not None for one in held):
            dtype = odd[0].held.dtype if odd[0].held is not None else ""
            raise self._error(
                row,
                f"is {dtype} in {quoted(odd[0].inventory.label)} and not the same in all models; "
                f"method {self._method.name} cannot compute with that",
                "such tensors are taken over only where all models agree",
            )
        return held[0]

    def _check_shapes(self, row: Row) -> None:
        cells = [cell for cell in (row.base, *row.cells) if cell is not None and cell.held]
        first = cells[0]
        for cell in cells[1:]:
            assert cell.held is not None and first.held is not None
            mine, theirs = cell.held.shape, first.held.shape
            if mine == theirs:
                continue
            if is_vocabulary(row.name) and mine[1:] == theirs[1:]:
                raise self._error(
                    row,
                    f"has {mine[0]} tokens in {quoted(cell.inventory.label)}, {theirs[0]} in "
                    f"{quoted(first.inventory.label)}",
                    "say whose vocabulary the result has, such as tokenizer: {source: base}",
                )
            raise self._error(
                row,
                f"has shape {list(mine)} in {quoted(cell.inventory.label)}, {list(theirs)} in "
                f"{quoted(first.inventory.label)}",
                "merge models of one architecture",
            )

    def _like(self, row: Row) -> Held:
        """The tensor whose grid the output has: that of the model whose place it takes."""
        cells = [cell for cell in (row.base, *row.cells) if cell is not None]
        cells.sort(key=lambda cell: cell.inventory is not row.origin[0])
        return next(cell.held for cell in cells if cell.held is not None)

    def _dtype(self, row: Row) -> DType:
        given = self._stage.out_dtype or self._stage.dtype
        if given is not None:
            return given
        cells = [cell.held for cell in (row.base, *row.cells) if cell is not None]
        # An adapter's own dtype says nothing of what the model is in.
        return promoted([held.dtype for held in cells if held is not None])

    def _config(self, rows: Sequence[Row], held: Mapping[str, Held]) -> Mapping[str, Any] | None:
        """config.json of the result: layers as they were stacked, and a head of its own or not."""
        config = self.reference.config
        if config is None:
            return None
        count = layer_count(config)
        stacked: dict[str, dict[int, LayerOrigin]] = {}
        for row in rows:
            inventory, layer = row.origin
            if row.layer >= 0 and inventory.config is not None:
                origins = stacked.setdefault(row.module, {})
                origins.setdefault(row.layer, LayerOrigin(inventory.config, layer))
        for module, origins in stacked.items():
            if self.reference.architecture.layers(module) == count:
                config = restacked(config, [origins[number] for number in sorted(origins)])
                break
        output = read_architecture(held, None, "")
        head, _ = head_and_embeddings(output)
        if lacks_head(held, output, config):
            raise MergeInputError(
                f"{self._source}, line {self._stage.place.line}: config.json of "
                f"{quoted(self.reference.label)} says that it has output embeddings of its own "
                "(tie_word_embeddings: false), and the result would have none",
                "are all of its files there? If it shares its embeddings, correct its config.json",
            )
        if head is not None and self.reference.architecture.tied:
            # On top as well, where transformers looks first.
            config = amended(config, {"tie_word_embeddings": False})
            config["tie_word_embeddings"] = False
        return config

    def _error(self, row: Row, what: str, hint: str = "") -> MergeInputError:
        return MergeInputError(
            f"{self._source}, line {self._stage.place.line}: tensor {quoted(row.name)} {what}", hint
        )


def _split(model: Inventory, modules: Sequence[str]) -> Inventory:
    """The model with the modules that a recipe names."""
    architecture = with_modules(model.architecture, modules)
    if architecture.modules == model.architecture.modules:
        return model
    return replace(model, architecture=architecture)


def _plain(held: Held) -> LineInput:
    """A tensor as it stands, with its adapter's factors."""
    return LineInput(held.model, held.source, TermKind.FULL, held.factors)
