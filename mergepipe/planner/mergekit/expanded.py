"""A recipe spelled out, before it is decided which file of the output holds which tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from mergepipe.ids import ObjectId
from mergepipe.objects.records import Snapshot, Tensor, TensorEntry
from mergepipe.planner.inputs import kept_line
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.planner.mergekit.inventory import Inventory
from mergepipe.planner.model_files import ModelFiles
from mergepipe.planner.recipe import Model
from mergepipe.plans.left_out import LeftOut
from mergepipe.vocabularies import StoredTokenizer, VocabularyPlan


@dataclass(frozen=True, slots=True)
class Expanded:
    """A recipe's lines, before it is decided which file holds which of them.

    models    every stored model that is read, in the order of the recipe
    lines     those of the output have the directory of their component as `file`
    output    the result as a model, with its config.json and whose other files it takes over
    base      the model that commits lean on: the output's base_model, if it is a stored one
    tokens    what becomes of the output's vocabulary
    tokenizer the output's tokenizer, files and all
    lays_out  whether embeddings of some stage are laid out anew
    components  the results by their directories; `output` is that in the top one, if there is one
    like      the files of the model whose other files the output takes over
    left_out  what is left out of the models, all of it
    stale     files of `like`, and directories, that the output does not take over: layers moved
    apart     stages to be merged and stored before, because a later one moves their rows
    """

    models: tuple[Model, ...]
    lines: tuple[Line, ...]
    output: Inventory
    base: int | None
    tokens: VocabularyPlan
    tokenizer: StoredTokenizer
    warnings: tuple[str, ...]
    lays_out: bool
    components: Mapping[str, Inventory]
    like: ModelFiles
    left_out: tuple[LeftOut, ...] = ()
    apart: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def written(self) -> tuple[Line, ...]:
        """The lines of the output, in the order of its files."""
        return tuple(line for line in self.lines if line.file is not None)

    def laid_out(
        self,
        layout: Snapshot,
        identity: ObjectId,
        seed: int,
        tensor: Callable[[ObjectId], Tensor],
    ) -> Merge:
        """The merge, once a layout says which file holds which tensor.

        Adapters that lie in the model's directories are taken over as they stand.
        """
        order: list[tuple[str, TensorEntry]] = [
            (file.path, entry) for file, entry in layout.named_tensors()
        ]
        made = {
            (line.file, line.name): number
            for number, line in enumerate(self.lines)
            if line.file is not None
        }
        numbers = [number for number, line in enumerate(self.lines) if line.file is None]
        lines = [self.lines[number] for number in numbers]
        moved = {number: place for place, number in enumerate(numbers)}
        like = self.output.files_of
        for path, entry in order:
            number = made.get((path[: path.rfind("/") + 1], entry.name))
            if number is None:
                lines.append(kept_line(path, entry, tensor(entry.tensor), like))
            else:
                lines.append(replace(self.lines[number], file=path))
        return Merge(
            layout=identity,
            models=self.models,
            lines=tuple(_moved(line, moved) for line in lines),
            base=self.base,
            seed=seed,
            left_out=self.left_out,
        )


def _moved(line: Line, places: Mapping[int, int]) -> Line:
    """A line whose inputs are made by lines that were moved."""

    def moved(term: LineInput) -> LineInput:
        if isinstance(term.source, Made):
            return replace(term, source=Made(places[term.source.line]))
        return term

    return replace(
        line,
        base=None if line.base is None else moved(line.base),
        inputs=tuple(moved(term) for term in line.inputs),
    )
