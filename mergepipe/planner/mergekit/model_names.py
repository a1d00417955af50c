"""Models as recipes name them: `path`, `path@revision`, `path+lora`, or as mappings."""

from mergepipe.planner.mergekit.document import Mapping, Node, Place
from mergepipe.planner.mergekit.fields import Fields, Notes, text
from mergepipe.planner.mergekit.schema import ModelName

_NAMED = ("model", "lora", "override_architecture")
_HINT = "name a model: path, path@revision, path+lora, or {model: path, lora: path}"


def read_model(node: Node, what: str, notes: Notes) -> ModelName:
    """The model that a node names. Raises UsageError with its place."""
    if not isinstance(node, Mapping):
        return parse_model(text(node, what, notes), node.place, notes)
    fields = Fields(node, f"a {what}", notes, _NAMED)
    model = _path(fields.need("model", _HINT), notes)
    lora = fields.get("lora")
    if lora is not None:
        model = ModelName(model.path, model.revision, _path(lora, notes), node.place)
    return model


def parse_model(name: str, place: Place, notes: Notes) -> ModelName:
    """A model from its text. Raises UsageError for more than one `+`, and for empty parts."""
    model, plus, lora = name.partition("+")
    if plus and "+" in lora:
        raise notes.refused(place, f"{name!r} has more than one adapter", _HINT)
    if plus and not lora:
        raise notes.refused(place, f"{name!r} names no adapter", _HINT)
    adapter = _at(lora, place, notes) if plus else None
    model_name = _at(model, place, notes)
    return ModelName(model_name.path, model_name.revision, adapter, place)


def _path(node: Node, notes: Notes) -> ModelName:
    """A path with its revision: as text, or as a mapping."""
    if not isinstance(node, Mapping):
        return _at(text(node, "a model", notes), node.place, notes)
    fields = Fields(node, "a model", notes, ("path", "revision"))
    path = text(fields.need("path", _HINT), "path", notes)
    return ModelName(path, fields.text("revision"), None, node.place)


def _at(name: str, place: Place, notes: Notes) -> ModelName:
    path, at, revision = name.partition("@")
    if not path or (at and not revision):
        raise notes.refused(place, f"{name!r} names no model", _HINT)
    return ModelName(path, revision or None, None, place)
