"""A recipe's documents as its schema has them. All that can be refused without a model is.

UsageError: a file that cannot be understood, wherever a value has the wrong form. MergeInputError:
what can be understood and not merged (methods and parameters, checked in `checks`).
"""

from collections.abc import Mapping as MappingOf
from types import MappingProxyType

from mergepipe.dtypes import DType, dtype_called
from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.planner.budget import Budget, parse_percent
from mergepipe.planner.mergekit.document import (
    Mapping,
    Node,
    Scalar,
    Sequence,
    read_documents,
)
from mergepipe.planner.mergekit.fields import Fields, Notes, described, text, whole
from mergepipe.planner.mergekit.model_names import read_model
from mergepipe.planner.mergekit.schema import (
    Conditional,
    Given,
    Gradient,
    LayerRange,
    MergekitRecipe,
    Module,
    OutputSlice,
    Parameters,
    Rule,
    Single,
    SliceSource,
    Stage,
)
from mergepipe.planner.mergekit.stages import in_order
from mergepipe.planner.mergekit.tokenizer_fields import read_tokenizer

_ONE_OF = ("models", "slices", "modules")
_LIMITS = ("budget", "budget_total", "max_share")
_RECIPE = (
    *("merge_method", "base_model", "name", "dtype", "out_dtype", "parameters", *_ONE_OF),
    *("tokenizer", "tokenizer_source", "chat_template"),
    # Ours; mergekit reads everything.
    *_LIMITS,
)
_MODULE = ("models", "slices", "parameters")
_INPUT = ("model", "parameters")
_SLICE = ("sources", "base_model", "parameters")
_SOURCE = ("model", "layer_range", "parameters")
_FILTER = ("filter", "value")


def read_recipe(text_or_bytes: str | bytes, source: str = "the recipe") -> MergekitRecipe:
    """A recipe file's stages in the order they can be made in.

    Raises UsageError naming `source`, line and column.
    """
    notes = Notes(source)
    documents = read_documents(text_or_bytes, source)
    if not documents:
        raise UsageError(f"{source} is empty", "a recipe has a merge_method and models")
    try:
        stages, unused = in_order([_stage(document, notes) for document in documents], notes)
    except UsageError as error:
        # What was warned of is often the reason.
        raise UsageError(error.message, "; ".join((error.hint, *notes.warnings))) from error
    for stage in stages[:-1]:
        if stage.budget or stage.budget_total:
            notes.warn(
                stage.place, "only the budget of the result's document counts: it is for all"
            )
    content = text_or_bytes if isinstance(text_or_bytes, str) else text_or_bytes.decode("utf-8-sig")
    return MergekitRecipe(stages, content, source, tuple(notes.warnings), unused)


def _stage(document: Node, notes: Notes) -> Stage:
    fields = Fields(document, "a recipe", notes, _RECIPE)
    method = text(
        fields.need("merge_method", "it names the method, such as merge_method: ties"),
        "merge_method",
        notes,
    )
    base = fields.get("base_model")
    return Stage(
        method=method,
        modules=_modules(fields, notes),
        name=fields.text("name"),
        base=None if base is None else read_model(base, "base_model", notes),
        dtype=_dtype(fields, "dtype", notes),
        out_dtype=_dtype(fields, "out_dtype", notes),
        parameters=_parameters(fields, notes),
        tokenizer=read_tokenizer(fields, notes),
        chat_template=fields.text("chat_template"),
        **_limits(fields, notes),
        place=fields.place,
    )


def _limits(fields: Fields, notes: Notes) -> dict[str, str | None]:
    """What may be read, as text that is a budget."""
    limits = {key: fields.text(key) for key in _LIMITS}
    try:
        Budget.asked(limits["budget"], limits["budget_total"])
        if limits["max_share"] is not None:
            parse_percent(limits["max_share"])
    except UsageError as error:
        node = next(value for value in map(fields.get, _LIMITS) if value is not None)
        raise notes.refused(node.place, error.message, error.hint) from error
    return limits


def _modules(fields: Fields, notes: Notes) -> MappingOf[str | None, Module]:
    given = [key for key in _ONE_OF if _has_content(fields.get(key))]
    if len(given) != 1:
        present = " and ".join(given) if given else "none of models, slices and modules"
        raise notes.refused(fields.place, f"a recipe has {present}", "it needs exactly one of them")
    if given[0] != "modules":
        return MappingProxyType({None: _module(fields, notes, given[0], own=False)})
    inner = Fields(fields.need("modules"), "modules", notes, None)
    modules: dict[str | None, Module] = {}
    for name in inner.names:
        part = Fields(inner.need(name), f"module {quoted(name)}", notes, _MODULE)
        kinds = [key for key in ("models", "slices") if _has_content(part.get(key))]
        if len(kinds) != 1:
            present = "models and slices" if kinds else "neither models nor slices"
            raise notes.refused(
                part.place, f"module {quoted(name)} has {present}", "it needs exactly one of them"
            )
        modules[name] = _module(part, notes, kinds[0], own=True)
    return MappingProxyType(modules)


def _has_content(node: Node | None) -> bool:
    # Empty lists are as good as absent in mergekit.
    if isinstance(node, Sequence):
        return bool(node.items)
    return bool(node.entries) if isinstance(node, Mapping) else node is not None


def _module(fields: Fields, notes: Notes, kind: str, *, own: bool) -> Module:
    if kind == "models":
        inputs = tuple(_input_model(item, notes) for item in fields.items("models"))
        slices: tuple[OutputSlice, ...] = (OutputSlice(inputs, place=fields.place),)
    else:
        slices = tuple(_slice(item, notes) for item in fields.items("slices"))
    parameters = _parameters(fields, notes) if own else MappingProxyType({})
    return Module(slices, kind == "models", parameters, fields.place)


def _input_model(node: Node, notes: Notes) -> SliceSource:
    fields = Fields(node, "an entry of models", notes, _INPUT)
    model = read_model(fields.need("model", "name the model"), "model", notes)
    return SliceSource(model, None, _parameters(fields, notes), fields.place)


def _slice(node: Node, notes: Notes) -> OutputSlice:
    fields = Fields(node, "a slice", notes, _SLICE, ("residual_weight", "residual_model"))
    base = fields.get("base_model")
    sources = tuple(_source(item, notes) for item in fields.items("sources"))
    if not sources:
        raise notes.refused(fields.place, "a slice has no sources", "list models under sources")
    return OutputSlice(
        sources,
        None if base is None else read_model(base, "base_model", notes),
        _parameters(fields, notes),
        fields.place,
    )


def _source(node: Node, notes: Notes) -> SliceSource:
    fields = Fields(node, "a source", notes, _SOURCE)
    return SliceSource(
        read_model(fields.need("model", "name the model"), "model", notes),
        _layers(fields.need("layer_range", "such as layer_range: [0, 16]"), notes),
        _parameters(fields, notes),
        fields.place,
    )


def _layers(node: Node, notes: Notes) -> LayerRange:
    hint = "layer_range is [first, end]: [0, 16] are the layers 0 to 15"
    ends = [whole(item) for item in node.items] if isinstance(node, Sequence) else []
    numbers = [end for end in ends if end is not None]
    if isinstance(node, Sequence) and len(ends) == 2 and len(numbers) != 2:
        odd = node.items[ends.index(None)]
        raise notes.refused(
            odd.place, f"layer_range holds {described(odd)}, which is no whole number", hint
        )
    if len(ends) != 2:
        raise notes.refused(node.place, f"layer_range is {described(node)}", hint)
    begin, end = numbers
    if begin < 0 or end < begin:
        shown = f"[{begin}, {end}]"
        raise notes.refused(node.place, f"layer_range {shown} counts no layers", hint)
    return LayerRange(begin, end)


def _dtype(fields: Fields, key: str, notes: Notes) -> DType | None:
    node = fields.get(key)
    if node is None:
        return None
    name = text(node, key, notes)
    try:
        return dtype_called(name)
    except UsageError as error:
        raise notes.refused(node.place, f"{key}: {error.message}", error.hint) from error


def _parameters(fields: Fields, notes: Notes) -> Parameters:
    node = fields.get("parameters")
    if node is None:
        return MappingProxyType({})
    if not isinstance(node, Mapping):
        raise fields.wrong("parameters", node, "a mapping (name: value)")
    return MappingProxyType(
        {entry.key: Given(_value(entry.value, entry.key, notes), entry.place)
         for entry in node.entries}
    )  # fmt: skip


def _value(node: Node, name: str, notes: Notes) -> Single | Gradient | Conditional:
    if isinstance(node, Mapping):
        return Conditional((_rule(node, name, notes),))
    if isinstance(node, Sequence) and any(isinstance(item, Mapping) for item in node.items):
        return Conditional(tuple(_rule(item, name, notes) for item in node.items))
    return _varying(node, name, notes)


def _rule(node: Node, name: str, notes: Notes) -> Rule:
    if not isinstance(node, Mapping):
        raise notes.refused(
            node.place,
            f"{name}: {described(node)} stands among filters",
            "give a list of numbers, or a list of {filter, value}",
        )
    fields = Fields(node, f"a filter of {name}", notes, _FILTER)
    value = fields.need("value", "give the value for the tensors that match")
    pattern = fields.get("filter")
    if pattern is not None and not isinstance(pattern, Scalar):
        raise fields.wrong("filter", pattern, "a part of tensor names, or '*'")
    return Rule(None if pattern is None else pattern.text, _varying(value, name, notes))


def _varying(node: Node, name: str, notes: Notes) -> Single | Gradient:
    if isinstance(node, Sequence):
        if not node.items:
            raise notes.refused(node.place, f"{name} is an empty list", "give it a value")
        return Gradient(tuple(_single(item, name, notes) for item in node.items))
    return _single(node, name, notes)


def _single(node: Node, name: str, notes: Notes) -> Single:
    if isinstance(node, Scalar) and node.value is not None and node.text:
        return node.value
    raise notes.refused(
        node.place, f"{name} is {described(node)}", "give a number, true, false or text"
    )
