"""Parameters of one tensor, from all that a recipe says: levels, filters, gradients.

Levels, the nearest first: source (or model), output slice, module, recipe. Parameters that are one
value for all inputs (`t`, `normalize`, `lambda`, ...) do not look at the source, and their filters
see the name of the output's tensor; the others' see the input's. In each level the first filter
that matches counts; where none does, the next level is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from mergepipe.errors import MergeInputError
from mergepipe.methods.parameters import Parameter, Settings, Value
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.planner.mergekit.fields import Notes
from mergepipe.planner.mergekit.schema import (
    Conditional,
    Given,
    Gradient,
    Parameters,
    Single,
    Stage,
)

EVERY_TENSOR = "*"
# What pydantic, and so mergekit, takes for a truth value besides the real ones.
_TRUE = ("true", "yes", "on", "t", "y", "1")
_FALSE = ("false", "no", "off", "f", "n", "0")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a tensor stands in its slice: layer `layer` of `layers`; -1: before or after them."""

    layer: int = -1
    layers: int = 0

    @property
    def share(self) -> float:
        """How far along a gradient: 0 is its first value, 1 its last."""
        if self.layer < 0:
            return 0.0
        return 1.0 if self.layers < 2 else self.layer / (self.layers - 1)


@dataclass(frozen=True, slots=True)
class InputLevels:
    """What a recipe says for one input: its tensor's name, what to call it, its own parameters."""

    label: str
    name: str
    own: Parameters


def settings_for(
    method: Method,
    shared: Sequence[Parameters],
    inputs: Sequence[InputLevels],
    output_name: str,
    position: Position,
    source: str,
) -> Settings:
    """Checked parameters of `method` for one tensor; `shared` are slice, module and recipe.

    `source` names the file in errors. Raises MergeInputError: out of range, of a wrong kind,
    missing.
    """
    together: dict[str, object] = {}
    settings_of: list[dict[str, object]] = [{} for _ in inputs]
    for parameter in method.parameters:
        if parameter.per_expert:
            for found, levels in zip(settings_of, inputs, strict=True):
                value = _value(parameter, (levels.own, *shared), levels.name, position, source)
                if value is None:
                    value = _default(parameter, method, levels.label, levels.name, source)
                found[parameter.name] = value
        else:
            value = _value(parameter, shared, output_name, position, source)
            if value is None:
                value = _default(parameter, method, None, output_name, source)
            together[parameter.name] = value
    try:
        return method.settings(together, settings_of)
    except MergeInputError as error:
        raise MergeInputError(
            f"{source}: {error.message} (tensor {quoted(output_name)})", error.hint
        ) from error


def check_names(method: Method, stage: Stage, notes: Notes) -> None:
    """Warn of parameters that the method does not have, or not where they are given."""
    known = {parameter.name: parameter for parameter in method.parameters}
    levels = [stage.parameters, *(module.parameters for module in stage.modules.values())]
    for module in stage.modules.values():
        for part in module.slices:
            levels.append(part.parameters)
            for source in part.sources:
                _warn_of_shared(method, source.parameters, known, notes)
                levels.append(source.parameters)
    for level in levels:
        for name, given in level.items():
            if name not in known and name not in method.ignored:
                close = get_close_matches(name.lower(), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
                notes.warn(
                    given.place,
                    f"method {method.name} has no parameter {quoted(name)}, which is passed "
                    f"over; {hint if known else 'it has none'}",
                )


def check_values(method: Method, levels: Mapping[str, Given], source: str) -> None:
    """Every value that is given is one that the parameter may have. Raises MergeInputError."""
    for parameter in method.parameters:
        given = levels.get(parameter.name)
        if given is not None:
            for value in _all_values(given.value):
                _parsed(parameter, value, f"{source}, line {given.place.line}")


def _warn_of_shared(
    method: Method, own: Parameters, known: Mapping[str, Parameter], notes: Notes
) -> None:
    for name, given in own.items():
        if name in known and not known[name].per_expert:
            notes.warn(
                given.place,
                f"{name} is one value for all inputs of {method.name} and has no effect here; "
                "give it in the recipe's parameters",
            )


def _default(
    parameter: Parameter, method: Method, label: str | None, name: str, source: str
) -> Value:
    """What a recipe that is silent means. Raises MergeInputError where it must not be."""
    if parameter.default is not None and not parameter.mergekit_requires:
        meant = parameter.mergekit_default
        return parameter.default if meant is None else meant
    who = "" if label is None else f" for {quoted(label)}"
    raise MergeInputError(
        f"{source}: method {method.name}: {parameter.name} is missing{who}, tensor {quoted(name)}",
        f"{parameter.name}: {parameter.meaning}; recipes of mergekit must name it",
    )


def _value(
    parameter: Parameter,
    levels: Sequence[Parameters],
    name: str,
    position: Position,
    source: str,
) -> Value | None:
    for level in levels:
        given = level.get(parameter.name)
        if given is None:
            continue
        setting = _matching(given, name)
        if setting is not None:
            return _at(parameter, setting, position, f"{source}, line {given.place.line}")
    return None


def _matching(given: Given, name: str) -> Single | Gradient | None:
    if not isinstance(given.value, Conditional):
        return given.value
    for rule in given.value.rules:
        if rule.filter is None or rule.filter == EVERY_TENSOR or rule.filter in name:
            return rule.value
    return None


def _at(parameter: Parameter, value: Single | Gradient, position: Position, where: str) -> Value:
    if not isinstance(value, Gradient):
        return _parsed(parameter, value, where)
    values = [_parsed(parameter, text, where) for text in value.values]
    place = position.share * (len(values) - 1)
    lower = int(place)
    first, second = values[lower], values[min(lower + 1, len(values) - 1)]
    if parameter.kind is not float:
        return first
    part = place - lower
    return (1 - part) * float(first) + part * float(second)


def _all_values(value: Single | Gradient | Conditional) -> list[Single]:
    if isinstance(value, Conditional):
        return [constant for rule in value.rules for constant in _all_values(rule.value)]
    return list(value.values) if isinstance(value, Gradient) else [value]


def _parsed(parameter: Parameter, value: Single, where: str) -> Value:
    return parameter.parse(_coerced(parameter, value), where)


def _coerced(parameter: Parameter, value: Single) -> Single:
    """Truth values as numbers and the other way round, where mergekit takes them so."""
    if parameter.kind is float and isinstance(value, bool):
        return float(value)
    if parameter.kind is bool and not isinstance(value, bool):
        text = str(value).strip().lower()
        if value in (0, 1):
            return bool(value)
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
    return value
