"""A recipe spelled out: every tensor of every stage as a line, down to what is stored.

Stages are not merges of their own: what one makes is an input of the next (`lines.Made`), and is
not written. No weight is read.
"""

from collections.abc import Iterator

from mergepipe.errors import MergeInputError
from mergepipe.formats.model_card import CARD_NAME
from mergepipe.formats.weight_files import TOP
from mergepipe.objects.store import ObjectSource
from mergepipe.planner.lines import Line, unused_base
from mergepipe.planner.mergekit.components import left_alone, of_component
from mergepipe.planner.mergekit.expanded import Expanded
from mergepipe.planner.mergekit.fields import Notes
from mergepipe.planner.mergekit.inventories import Inventories
from mergepipe.planner.mergekit.inventory import Inventory
from mergepipe.planner.mergekit.layer_files import layer_files
from mergepipe.planner.mergekit.schema import MergekitRecipe
from mergepipe.planner.mergekit.settings import (
    check_names,
    check_values,
)
from mergepipe.planner.mergekit.shelf import ModelSource, Shelf
from mergepipe.planner.mergekit.stage_lines import StageLines, method_of
from mergepipe.planner.mergekit.stage_vocabulary import (
    Embeddings,
)
from mergepipe.planner.unmerged_files import unmerged_files
from mergepipe.plans.left_out import Kind, LeftOut, collected, of_names


def check(recipe: MergekitRecipe) -> tuple[str, ...]:
    """Refuse what is wrong whatever the models are; returns warnings.

    Raises MergeInputError: no such method, values that a parameter may not have, a dtype that the
    method cannot compute.
    """
    notes = Notes(recipe.source)
    try:
        _check(recipe, notes)
    except MergeInputError as error:
        # What was warned of is often the reason.
        raise MergeInputError(error.message, "; ".join((error.hint, *notes.warnings))) from error
    return (*recipe.warnings, *notes.warnings)


def _check(recipe: MergekitRecipe, notes: Notes) -> None:
    for stage in recipe.stages:
        method = method_of(stage, recipe.source)
        check_names(method, stage, notes)
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
                levels += [part.parameters, *(source.parameters for source in part.sources)]
        for level in levels:
            check_values(method, level, recipe.source)


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
        part = _Part(component, Inventories(shelf, directory, embeddings), embeddings, lines)
        part.run(allow_missing)
        parts[directory] = part
        warnings += tuple(text for text in part.warnings if text not in warnings)
    main = parts[TOP if TOP in parts else directories[0]]
    left_out += shelf.left_out
    left_out += (left for part in parts.values() for left in part.left_out)
    left_out += unused_base(shelf.models, lines, main.last.base_place)
    left_out += _files_left_out(main, shelf, recipe)
    like = shelf.files_at(main.output.files_of)
    stale = tuple(layer_files(like, shelf.read_file)) if main.output.moved else ()
    left_out += of_names(Kind.LAYER_FILES, like.label, stale)
    left_out += (LeftOut(Kind.STAGES, name) for name in recipe.unused)
    return Expanded(
        models=tuple(shelf.models),
        lines=tuple(lines),
        output=main.output,
        base=main.last.base_place,
        tokens=main.last.vocabulary.plan,
        tokenizer=main.last.vocabulary.tokenizer,
        warnings=warnings,
        lays_out=any(part.lays_out for part in parts.values()),
        components={directory: part.output for directory, part in parts.items()},
        like=like,
        left_out=collected(left_out),
        apart=tuple(dict.fromkeys(name for part in parts.values() for name in part.apart)),
        stale=stale,
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
        self.apart: tuple[str, ...] = ()
        self.output: Inventory
        self.last: StageLines
        self._recipe = recipe
        self._inventories = inventories
        self._embeddings = embeddings
        self._lines = lines

    def run(self, allow_missing: bool) -> None:
        """Make every stage into lines."""
        recipe, inventories = self._recipe, self._inventories
        for stage in recipe.stages:
            stage_lines = StageLines(
                stage, recipe.source, inventories, self._embeddings, self._lines, allow_missing
            )
            self.output = stage_lines.run(last=stage is recipe.output)
            self.warnings += stage_lines.warnings
            self.left_out += stage_lines.left_out
            self.lays_out |= stage_lines.vocabulary.plan.lays_out or inventories.adapts
            self.apart += stage_lines.vocabulary.apart
            if stage.name is not None:
                inventories.stages[stage.name] = self.output
                inventories.tokenizers[self.output.label] = stage_lines.vocabulary.tokenizer
            self.last = stage_lines
        self.left_out += tuple(inventories.left_out)
