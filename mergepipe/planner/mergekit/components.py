"""What a recipe says of a component beside the model in the top directory.

A recipe speaks of one model. Where all models have others beside it (the Dense module of a sentence
transformer), or none in the top directory but several below (a pipeline of diffusers), whole models
are merged component by component, each by the same method and parameters. Slices, modules,
tokenizers and adapters are about the model in the top directory: the other components of such a
recipe are the base's, or else the first model's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mergepipe.errors import MergeInputError
from mergepipe.formats.weight_files import TOP
from mergepipe.names import quoted
from mergepipe.planner.mergekit.schema import (
    MergekitRecipe,
    ModelName,
    Module,
    OutputSlice,
    SliceSource,
    Stage,
)
from mergepipe.planner.mergekit.shelf import Shelf
from mergepipe.plans.left_out import Kind, LeftOut


def of_component(
    recipe: MergekitRecipe, directory: str, shelf: Shelf, *, alone: bool
) -> MergekitRecipe:
    """The recipe for one component.

    alone  no model has anything in the top directory

    Raises MergeInputError for slices, modules and adapters where there is no model that they could
    be about.
    """
    if directory == TOP:
        return recipe
    stages = tuple(_stage(stage, recipe, shelf, alone=alone) for stage in recipe.stages)
    return recipe.with_stages(stages)


def left_alone(recipe: MergekitRecipe, directories: Sequence[str]) -> Iterator[LeftOut]:
    """Components that stages take over as they stand, instead of merging them."""
    beside = tuple(directory for directory in directories if directory != TOP)
    if not beside or TOP not in directories:
        return
    for stage in recipe.stages:
        if not _is_whole(stage):
            yield LeftOut(Kind.COMPONENTS, str(_reference(stage)), beside)


def _is_whole(stage: Stage) -> bool:
    return list(stage.modules) == [None] and all(module.whole for module in stage.modules.values())


def _reference(stage: Stage) -> ModelName:
    """The model whose components a stage of slices or modules has."""
    return _bare(stage.models[0] if stage.base is None else stage.base)


def _stage(stage: Stage, recipe: MergekitRecipe, shelf: Shelf, *, alone: bool) -> Stage:
    stages = {other.name for other in recipe.stages}
    whole = _is_whole(stage)
    adapters = any(name.lora is not None for name in stage.models)
    if alone and (not whole or adapters):
        what = "adapters" if whole else "slices and modules"
        raise MergeInputError(
            f"{recipe.source}, line {stage.place.line}: {what} are of one model, and "
            f"{quoted(str(stage.models[0]))} is a pipeline of several",
            "name one of its directories as the model",
        )

    def is_model(name: ModelName) -> bool:
        return (name.revision is None and name.path in stages) or not shelf.is_adapter(_bare(name))

    plain = replace(stage, tokenizer=None, chat_template=None)
    base = None if stage.base is None else _bare(stage.base)
    if not whole:
        return _taken_over(plain, _reference(stage))
    module = stage.modules[None]
    part = module.slices[0]
    sources = tuple(
        replace(source, model=_bare(source.model))
        for source in part.sources
        if is_model(source.model)
    )
    if not sources:
        assert base is not None  # adapters by themselves need one
        return _taken_over(plain, base)
    parts = (replace(part, sources=sources, base=None if part.base is None else _bare(part.base)),)
    return replace(plain, base=base, modules={None: replace(module, slices=parts)})


def _taken_over(stage: Stage, model: ModelName) -> Stage:
    """A stage that is a model's component, as it stands."""
    part = OutputSlice((SliceSource(model, None, place=stage.place),), place=stage.place)
    module = Module((part,), whole=True, place=stage.place)
    return Stage(
        method="passthrough",
        modules={None: module},
        name=stage.name,
        dtype=stage.dtype,
        out_dtype=stage.out_dtype,
        place=stage.place,
    )


def _bare(name: ModelName) -> ModelName:
    """A model without the adapter on it."""
    return replace(name, lora=None)
