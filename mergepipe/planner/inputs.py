"""A simple recipe spelled out: its models' tensors, lined up by name, become the lines of a merge.

No weight is read. Every error names a model and a tensor.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from mergepipe.dtypes import F32, DType, dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.adapters import is_adapter
from mergepipe.formats.architecture import read_architecture
from mergepipe.formats.buffers import is_buffer
from mergepipe.formats.weight_files import directory_of
from mergepipe.formats.weight_names import same_weights
from mergepipe.ids import ObjectId
from mergepipe.methods import registry
from mergepipe.methods.parameters import Settings
from mergepipe.methods.passthrough import PASSTHROUGH
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.objects.merging import TermKind
from mergepipe.objects.records import Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.planner.adapter_directories import check_adapter
from mergepipe.planner.lines import Line, LineInput, Merge, unused_base
from mergepipe.planner.model_files import ModelFiles, ReadFile, read_model_files
from mergepipe.planner.name_matching import check_missing, nothing_in_common, respelling_note
from mergepipe.planner.output_head import check_head
from mergepipe.planner.recipe import Expert, Model, Recipe, settings_for
from mergepipe.planner.unmerged_files import OtherModel, unmerged_files
from mergepipe.plans.left_out import Kind, LeftOut, collected, of_names


class _Names:
    """A model's tensors by file and name; by component and name where that says enough.

    renamed  its own names -> those that it has here, where it was spelled as another
    """

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.renamed: dict[str, str] = {}
        self.by_place: dict[tuple[str, str], ObjectId] = {}
        self._by_name: dict[tuple[str, str], list[ObjectId]] = {}
        for directory, component in files.components.items():
            for tensor in component.tensors:
                self.by_place[tensor.path, tensor.name] = tensor.identity
                self._by_name.setdefault((directory, tensor.name), []).append(tensor.identity)

    def find(self, path: str, name: str) -> ObjectId | None:
        """The tensor called `name`: in the file `path`, or wherever its shards put it.

        Raises MergeInputError where two of them are.
        """
        here = self.by_place.get((path, name))
        if here is not None:
            return here
        there = self._by_name.get((directory_of(path), name), [])
        if len(there) > 1:
            raise MergeInputError(
                f"{quoted(self.files.label)} has two tensors called {quoted(name)}",
                "keep one set of weights: model.safetensors and shards of it are two",
            )
        return there[0] if there else None

    def dtype_of(self, path: str, tensor: Tensor) -> DType:
        """What a tensor counts as: of one that was 8-bit floats, what a result is to be in."""
        component = self.files.components.get(directory_of(path))
        given = None if component is None else component.dtype
        return given if given is not None and tensor.dtype == F32.name else dtype_of(tensor.dtype)

    def buffers(self, tensors: Tensors) -> set[str]:
        """Tensors that follow from the config, by directory and name."""
        return {
            directory_of(path) + name
            for (path, name), identity in self.by_place.items()
            if is_buffer(name, tensors[identity].shape)
        }

    def spelled_as(self, other: "_Names", buffers: Container[str]) -> "_Names":
        """The same tensors, under `other`'s names where those are of the same weights."""
        renamed: dict[tuple[str, str], str] = {}
        for directory in self.files.components:
            mine, theirs = (
                [
                    name
                    for place, name in names._by_name
                    if place == directory and directory + name not in buffers
                ]
                for names in (self, other)
            )
            for name, spelled in same_weights(mine, theirs).items():
                renamed[directory, name] = spelled
        if not renamed:
            return self
        found = _Names(self.files)
        found.renamed = {directory + name: new for (directory, name), new in renamed.items()}
        found.by_place = {
            (path, renamed.get((directory_of(path), name), name)): identity
            for (path, name), identity in self.by_place.items()
        }
        found._by_name = {
            (directory, renamed.get((directory, name), name)): identities
            for (directory, name), identities in self._by_name.items()
        }
        return found

    @property
    def shown(self) -> Iterator[str]:
        """Every tensor by the name that users see."""
        return (directory + name for directory, name in self._by_name)

    def lacking(self, other: "_Names") -> list[str]:
        """What `other` has and this has not, by the names that users see."""
        return sorted(
            directory + name
            for directory, name in other._by_name
            if (directory, name) not in self._by_name
        )


def _nothing(snapshot: Snapshot, path: str) -> None:
    """Reads no file: for models that are only tensors."""


def expand(
    recipe: Recipe,
    tensors: Tensors,
    objects: ObjectSource,
    read: ReadFile = _nothing,
    keep: Callable[[Snapshot, Mapping[str, bytes]], ObjectId] | None = None,
) -> Merge:
    """The merge of a recipe: a line for each tensor of its layout, in the order of its files.

    read  gives configs and indexes
    keep  makes a snapshot known to `objects`: of the layout without weights that are not the
          model's, if it has such

    Models are the experts in their order, then the base. Raises MergeInputError: wrong number of
    models, a base that is needed, parameters that the method does not take, names that do not
    match, shapes or dtypes that differ, a dtype that the method cannot compute with, weights that
    are codes.
    """
    method = registry.find(recipe.method)
    method.check_models(len(recipe.experts), base=recipe.base is not None)
    for expert in recipe.experts:
        _check_kind(recipe, expert)
    known: dict[ObjectId, _Names] = {}

    def names_of(model: Model | Expert) -> _Names:
        names = known.get(model.snapshot)
        if names is None:
            snapshot = objects.snapshot(model.snapshot)
            _check_no_adapter(snapshot, model.label)
            files = read_model_files(snapshot, tensors.__getitem__, read, model.label)
            names = known[model.snapshot] = _Names(files)
        return names

    layout = names_of(recipe.layout)
    _check_heads(layout.files, tensors)
    experts = [names_of(expert) for expert in recipe.experts]
    buffers = {name for names in known.values() for name in names.buffers(tensors)}
    matched = [
        _matched(recipe, expert, layout, names, buffers)
        for expert, names in zip(recipe.experts, experts, strict=True)
    ]
    experts = [names for names, _ in matched]
    settings = _SettingsReader(recipe, method)
    models = tuple(Model(expert.label, expert.snapshot) for expert in recipe.experts)
    base = None
    if recipe.base is not None:
        base = len(models)
        models = (*models, recipe.base)
    lines = []
    for file in layout.files.layout.files:
        if not isinstance(file.content, Safetensors):
            continue
        for entry in file.content.tensors:
            place = file.path, entry.name
            own = tuple(names.find(*place) for names in experts)
            buffer = directory_of(file.path) + entry.name in buffers and None in own
            if place not in layout.by_place or buffer:
                lines.append(kept_line(file.path, entry, tensors[entry.tensor], base or 0))
                continue
            read_settings = settings.read(entry.name)
            counted = [
                one.dtype_of(file.path, tensors[identity or entry.tensor])
                for one, identity in zip((layout, *experts), (entry.tensor, *own), strict=True)
            ]
            stored = [None if one is None else tensors[one] for one in (entry.tensor, *own)]
            _check_pairs(recipe, entry.name, stored, counted)
            lines.append(
                _line_up(
                    recipe, method, read_settings, tensors, place, entry.tensor, own, counted[0]
                )
            )
    identity = recipe.layout.snapshot
    corrected = layout.files.corrected_configs
    if keep is not None and (corrected or layout.files.layout is not layout.files.snapshot):
        identity = keep(layout.files.layout, corrected)
    left_out = [one for names in known.values() for one in names.files.left_out]
    warnings = []
    for model, names in zip(models, (*experts, layout), strict=False):
        if names.renamed:
            warnings.append(respelling_note(model.label, recipe.layout.label, names.renamed))
        stray = sorted(name for name in layout.lacking(names) if name in buffers)
        left_out += of_names(Kind.BUFFERS, model.label, stray)
    left_out += [one for _, left in matched for one in left]
    left_out += unused_base(models, lines, base)
    for names in experts:
        if names.files is not layout.files:
            other = OtherModel.of(names.files)
            left_out += unmerged_files(layout.files, other, read, tokenizer=layout.files)
    return Merge(
        layout=identity,
        models=models,
        lines=tuple(lines),
        base=base,
        seed=recipe.seed,
        warnings=tuple(dict.fromkeys(warnings)),
        left_out=collected(left_out),
    )


def kept_line(path: str, entry: TensorEntry, tensor: Tensor, model: int) -> Line:
    """A tensor of the layout that is no weight of the model (an adapter's in it): as it stands.

    model  the place of the one that it is from
    """
    return Line(
        file=path,
        name=entry.name,
        like=entry.tensor,
        dtype=dtype_of(tensor.dtype),
        method=PASSTHROUGH,
        settings=Settings({}, ({},)),
        base=None,
        inputs=(LineInput(model, entry.tensor),),
        copied=True,
    )


def _check_no_adapter(snapshot: Snapshot, label: str) -> None:
    names = (entry.name for _, entry in snapshot.named_tensors())
    if is_adapter(file.path for file in snapshot.files) and any(".lora_" in name for name in names):
        check_adapter(snapshot, label)
        raise MergeInputError(
            f"{quoted(label)} is an adapter, not a model",
            f"adapters are merged by a recipe: model+{label} in it, or {label} beside a base_model "
            "(mp merge --recipe FILE)",
        )


class _SettingsReader:
    """A recipe's parameters, tensor by tensor; equal ones are checked once."""

    def __init__(self, recipe: Recipe, method: Method) -> None:
        self._recipe = recipe
        self._method = method
        self._known: dict[object, Settings] = {}

    def read(self, tensor: str) -> Settings:
        """The settings of one tensor. Raises MergeInputError."""
        shared = settings_for(self._recipe.parameters, tensor)
        own = [settings_for(expert.parameters, tensor) for expert in self._recipe.experts]
        key = repr((sorted(shared.items()), [sorted(settings.items()) for settings in own]))
        files = self._known.get(key)
        if files is None:
            files = self._known[key] = self._method.settings(shared, own)
        return files


def _check_kind(recipe: Recipe, expert: Expert) -> None:
    if expert.kind is TermKind.LOW_RANK:
        raise MergeInputError(
            f"{quoted(expert.label)} is an adapter of low rank",
            "name it as model+adapter, or in a recipe file: here experts are matched by name",
        )
    if expert.kind is TermKind.DELTA and recipe.base is None:
        raise MergeInputError(
            f"{quoted(expert.label)} holds deltas, and there is no base", "name one with --base"
        )


def _matched(
    recipe: Recipe, expert: Expert, layout: _Names, names: _Names, buffers: Container[str]
) -> tuple[_Names, tuple[LeftOut, ...]]:
    """An expert's tensors under the names of the layout, and those that find no partner."""
    matched = names.spelled_as(layout, buffers)
    missing = [name for name in matched.lacking(layout) if name not in buffers]
    if expert.kind is TermKind.DELTA:
        missing = []  # what it does not name, it does not change
    left_out = check_missing(
        expert.label,
        recipe.layout.label,
        missing,
        [name for name in layout.lacking(matched) if name not in buffers],
        stand_in=recipe.allow_missing and recipe.base is not None,
        leave_out=recipe.allow_missing,
    )
    if missing and len(missing) == sum(name not in buffers for name in layout.shown):
        raise nothing_in_common(expert.label, recipe.layout.label)
    return matched, left_out


def _line_up(
    recipe: Recipe,
    method: Method,
    settings: Settings,
    tensors: Tensors,
    place: tuple[str, str],
    identity: ObjectId,
    experts: tuple[ObjectId | None, ...],
    counted: DType,
) -> Line:
    """The line of a layout's tensor; `counted` is the dtype that it counts as."""
    file, name = place
    layout = tensors[identity]
    dtype = dtype_of(layout.dtype)
    arithmetic = method.accepts(dtype)
    for expert, tensor in zip(recipe.experts, experts, strict=True):
        if tensor is None:
            if recipe.base is None:
                raise MergeInputError(
                    f"{quoted(expert.label)} lacks tensor {quoted(name)}, and there is no base "
                    "that could stand in",
                    "name one with --base",
                )
            continue
        if method.accepts(dtype_of(tensors[tensor].dtype)) != arithmetic:
            raise _cannot_compute(method, expert, name, tensors[tensor])
    if not arithmetic:
        for expert, tensor in zip(recipe.experts, experts, strict=True):
            if tensor is not None and tensor != identity:
                raise _cannot_compute(method, expert, name, tensors[tensor])
    inputs = tuple(
        LineInput(number, tensor, expert.kind)
        for number, (expert, tensor) in enumerate(zip(recipe.experts, experts, strict=True))
    )
    base = None if recipe.base is None else LineInput(len(inputs), identity)
    return Line(
        file=file,
        name=name,
        like=identity,
        dtype=(recipe.dtype or counted) if arithmetic else dtype,
        method=method.variant(settings, base=base is not None),
        settings=settings,
        base=base,
        inputs=inputs,
        copied=not arithmetic,
    )


def _cannot_compute(method: Method, expert: Expert, name: str, tensor: Tensor) -> MergeInputError:
    return MergeInputError(
        f"{quoted(expert.label)}: tensor {quoted(name)} is {tensor.dtype} and differs from the "
        f"others'; method {method.name} cannot compute with that",
        "such tensors are taken over only where all models agree",
    )


def _check_heads(files: ModelFiles, tensors: Tensors) -> None:
    """Raise MergeInputError for a layout that lacks a head that its config promises."""
    for component in files.components.values():
        if component.config is not None:
            shapes = {tensor.name: tensors[tensor.identity].shape for tensor in component.tensors}
            architecture = read_architecture(shapes, None, files.label)
            check_head(shapes, architecture, component.config, files.label)


def _check_pairs(
    recipe: Recipe, name: str, stored: Sequence[Tensor | None], counted: Sequence[DType]
) -> None:
    """Each expert's tensor fits the layout's, which is the first, with the dtype it counts as.

    Dtypes may differ where the result's is said, and in differences.
    """
    layout, reference = stored[0], quoted(recipe.layout.label)
    assert layout is not None
    for expert, tensor, dtype in zip(recipe.experts, stored[1:], counted[1:], strict=True):
        if tensor is None:
            continue
        label = quoted(expert.label)
        if tensor.shape != layout.shape:
            raise MergeInputError(
                f"{label}: tensor {quoted(name)} has shape {list(tensor.shape)}, "
                f"in {reference} {list(layout.shape)}",
                "merge models of one architecture and vocabulary",
            )
        free = recipe.dtype is not None or expert.kind is TermKind.DELTA
        if dtype != counted[0] and not free:
            raise MergeInputError(
                f"{label}: tensor {quoted(name)} is {dtype}, in {reference} {counted[0]}",
                "say what the output shall be, as in --dtype BF16, to merge across dtypes",
            )
