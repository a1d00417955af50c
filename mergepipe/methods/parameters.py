"""Parameters of a merge method: declared once, checked before any weight is read."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import TypeAlias

from msgspec import Struct

from mergepipe.errors import MergeInputError

Value: TypeAlias = float | bool | str


class Parameter(Struct, frozen=True):
    """One parameter: its name, default and the values it may take.

    default     value when nothing is given; None makes the parameter required
    kind        float, bool or str; numbers written as text ("1e-4", a string in YAML) are floats
    per_expert  whether each expert may have its own value; a shared value then is their default
    lowest, highest  bounds of a float, both allowed values
    choices     the only values of a str
    whole       of a float: whether it must be a whole number
    mergekit_requires  whether a mergekit config must name it although we have a default
    mergekit_default   what a mergekit config means that does not name it; None: our default
    """

    name: str
    default: Value | None
    meaning: str
    kind: type[float] | type[bool] | type[str] = float
    per_expert: bool = False
    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()
    mergekit_requires: bool = False
    mergekit_default: Value | None = None
    whole: bool = False

    def parse(self, given: object, where: str) -> Value:
        """`given` as a value of this parameter; MergeInputError names `where` it is from."""
        if self.kind is bool:
            if isinstance(given, bool) or (isinstance(given, int) and given in (0, 1)):
                return bool(given)
            raise self._refused(given, where, "true or false")
        if self.kind is str:
            if isinstance(given, str) and given in self.choices:
                return given
            raise self._refused(given, where, " or ".join(self.choices))
        return self._number(given, where)

    def _number(self, given: object, where: str) -> float:
        wanted = self._kind() if self.whole else "a finite number"
        if self.lowest is not None and self.highest is not None:
            wanted = f"{self._kind()} from {self.lowest:g} to {self.highest:g}"
        elif self.lowest is not None:
            wanted = f"{self._kind()} not below {self.lowest:g}"
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise self._refused(given, where, wanted)
        try:
            number = float(given)
        except (ValueError, OverflowError):
            raise self._refused(given, where, wanted) from None
        low_enough = self.highest is None or number <= self.highest
        high_enough = self.lowest is None or number >= self.lowest
        fits = not self.whole or number.is_integer()
        if not (isfinite(number) and low_enough and high_enough and fits):
            raise self._refused(given, where, wanted)
        return number

    def _kind(self) -> str:
        return "a whole number" if self.whole else "a number"

    def _refused(self, given: object, where: str, wanted: str) -> MergeInputError:
        return MergeInputError(
            f"{where}: {self.name} is {given!r}", f"{self.name} must be {wanted}"
        )


class Settings(Struct, frozen=True):
    """Checked parameter values of one method for one tensor: every name is present."""

    shared: Mapping[str, Value]
    experts: tuple[Mapping[str, Value], ...]

    def number(self, name: str, expert: int | None = None) -> float:
        """A float parameter, of one expert or shared."""
        return float((self.shared if expert is None else self.experts[expert])[name])

    def flag(self, name: str) -> bool:
        """A shared bool parameter."""
        return bool(self.shared[name])

    def choice(self, name: str) -> str:
        """A shared str parameter."""
        return str(self.shared[name])


def read_settings(
    method: str,
    parameters: Sequence[Parameter],
    shared: Mapping[str, object],
    experts: Sequence[Mapping[str, object]],
) -> Settings:
    """Check and complete what a recipe gives; an expert's own value beats a shared one.

    Raises MergeInputError for a name the method does not have (with the nearest one it has), a
    value out of range, a value per expert of a shared parameter, or a required one that is missing.
    """
    known = {parameter.name: parameter for parameter in parameters}
    where = f"method {method}"
    for name in shared:
        _find(known, name, where)
    for index, expert in enumerate(experts):
        for name in expert:
            if not _find(known, name, f"{where}, expert {index + 1}").per_expert:
                raise MergeInputError(
                    f"{where}, expert {index + 1}: {name} is one value for the whole merge",
                    f"give {name} beside the experts, not to one of them",
                )
    read_shared: dict[str, Value] = {}
    read_experts: list[dict[str, Value]] = [{} for _ in experts]
    for parameter in parameters:
        if not parameter.per_expert:
            read_shared[parameter.name] = _read(parameter, where, shared)
            continue
        for index, own in enumerate(experts):
            place = f"{where}, expert {index + 1}"
            read_experts[index][parameter.name] = _read(parameter, place, own, shared)
    return Settings(read_shared, tuple(read_experts))


def _read(parameter: Parameter, where: str, *levels: Mapping[str, object]) -> Value:
    for level in levels:
        if parameter.name in level:
            # What is said once, for all, is wrong for all.
            where = where if level is levels[0] else where.partition(",")[0]
            return parameter.parse(level[parameter.name], where)
    if parameter.default is None:
        raise MergeInputError(
            f"{where}: {parameter.name} is missing", f"{parameter.name}: {parameter.meaning}"
        )
    return parameter.default


def _find(known: Mapping[str, Parameter], name: str, where: str) -> Parameter:
    if name not in known:
        raise MergeInputError(
            f"{where} has no parameter {name!r}", nearest(name, known) or "it takes no parameters"
        )
    return known[name]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name closest to `name`, or all of them."""
    names = sorted(known)
    close = get_close_matches(name.lower(), names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
