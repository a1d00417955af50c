"""What is to be merged, as a frozen value: nothing here has looked at a model yet."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import force_setattr

from mergepipe.dtypes import DType
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import TermKind
from mergepipe.reprs import brief

EVERY_TENSOR = "*"
_EMPTY: Mapping[str, "Setting"] = MappingProxyType({})


@brief
class PerTensor(Struct, frozen=True):
    """A parameter that varies: ordered (filter, value); the first filter in a name counts.

    A filter is a substring of the tensor's name; `*` or an empty one is in every name. A name that
    none is in falls to the next level (an expert's to the shared one, that to the default).
    """

    rules: tuple[tuple[str, object], ...]

    def matching(self, name: str) -> tuple[object, ...]:
        """The value for a tensor as a tuple of one, or nothing."""
        for part, value in self.rules:
            if part in ("", EVERY_TENSOR) or part in name:
                return (value,)
        return ()


# A value for all tensors, or one that varies.
Setting: TypeAlias = object | PerTensor


def settings_for(settings: Mapping[str, Setting], name: str) -> dict[str, object]:
    """The values that hold for the tensor called `name`."""
    chosen: dict[str, object] = {}
    for key, setting in settings.items():
        if isinstance(setting, PerTensor):
            for value in setting.matching(name):
                chosen[key] = value
        else:
            chosen[key] = setting
    return chosen


@brief
class Model(Struct, frozen=True):
    """A model of a recipe: how it was named there, and the snapshot that meant."""

    label: str
    snapshot: ObjectId


@brief
class Expert(Struct, frozen=True):
    """One input: its label and snapshot, its own parameters, and what its tensors hold."""

    label: str
    snapshot: ObjectId
    parameters: Mapping[str, Setting] = field(default_factory=lambda: _EMPTY)
    kind: TermKind = TermKind.FULL

    def __post_init__(self) -> None:
        force_setattr(self, "parameters", MappingProxyType(dict(self.parameters)))


@brief
class Recipe(Struct, frozen=True):
    """A merge: method, experts in order, base, parameters.

    parameters     shared by all experts; an expert's own beat them
    dtype          of the output's float tensors; None keeps each tensor's. Naming one also allows
                   experts whose dtype is not the base's
    allow_missing  tensors that an expert lacks count as the base's; those only it has are left out
    """

    method: str
    experts: tuple[Expert, ...]
    base: Model | None = None
    parameters: Mapping[str, Setting] = field(default_factory=lambda: _EMPTY)
    dtype: DType | None = None
    seed: int = 0
    allow_missing: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "parameters", MappingProxyType(dict(self.parameters)))

    @property
    def layout(self) -> Model:
        """Whose files, names and order the output has: the base's, or else the first expert's."""
        if self.base is not None:
            return self.base
        return Model(self.experts[0].label, self.experts[0].snapshot)
