"""A method's resolved numbers as a plan keeps them: by name, and only what is not the default.

Which numbers there are is the methods' affair (`methods.terms`): one that is added there is kept
here without further ado, and plans that do not use it stay as they are, to the byte.
"""

from dataclasses import fields
from functools import cache
from typing import Any

from mergepipe.errors import MergeInputError
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.names import quoted
from mergepipe.objects.merging import LinePlan, Number

_EXPERTS = "experts"
Stored = tuple[Number, ...]


def stored_numbers(scalars: Scalars) -> tuple[Stored, tuple[Stored, ...]]:
    """The numbers of a line, and those of each of its inputs."""
    return _stored(scalars), tuple(_stored(own) for own in scalars.experts)


def scalars_of(line: LinePlan) -> Scalars:
    """The numbers of a planned line. Raises MergeInputError for one that no method here has."""
    experts = tuple(ExpertScalars(**_read(ExpertScalars, own)) for own in line.input_numbers)
    return Scalars(experts, **_read(Scalars, line.numbers))


def _stored(values: Scalars | ExpertScalars) -> Stored:
    found: list[Number] = []
    kind: Any = type(values)
    for name, default in _defaults(kind).items():
        value = getattr(values, name)
        if value == default:
            continue
        if isinstance(value, tuple):
            found.append((name, tuple(float(one) for one in value)))
        else:
            found.append((name, value if isinstance(value, bool) else float(value)))
    return tuple(found)


def _read(kind: Any, numbers: Stored) -> dict[str, Any]:
    defaults = _defaults(kind)
    for name, _ in numbers:
        if name not in defaults:
            raise MergeInputError(
                f"the plan has a number {quoted(name)} that no method of this release knows",
                "make the plan again",
            )
    return dict(numbers)


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    """What a field has by default; `kind` is a dataclass."""
    return {one.name: one.default for one in fields(kind) if one.name != _EXPERTS}
