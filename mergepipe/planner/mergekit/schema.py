"""What a mergekit recipe says, as frozen values: the schema of mergekit 0.1.5.

Nothing here has looked at a model. `reading` makes these from a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Self, TypeAlias

from mergepipe.dtypes import DType
from mergepipe.planner.mergekit.document import Place

NOWHERE = Place(0, 0)

# One value of a parameter. Text may still turn out to be a number ("1e-4").
Single: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Gradient:
    """Values that a slice's layers run through, from its first to its last."""

    values: tuple[Single, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A value for tensors whose names contain `filter`; None, "" and "*" are in every name."""

    filter: str | None
    value: Single | Gradient


@dataclass(frozen=True, slots=True)
class Conditional:
    """Rules in their order: the first that matches counts."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A parameter as a recipe gives it, and where."""

    value: Single | Gradient | Conditional
    place: Place = field(default=NOWHERE, compare=False)


Parameters: TypeAlias = Mapping[str, Given]
NO_PARAMETERS: Parameters = MappingProxyType({})


def no_parameters() -> Parameters:
    """For what a recipe says nothing of."""
    return NO_PARAMETERS


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model as a recipe names it, and an adapter on it (`path@revision+lora`)."""

    path: str
    revision: str | None = None
    lora: "ModelName | None" = None
    place: Place = field(default=NOWHERE, compare=False)

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{self.path}{at}" + ("" if self.lora is None else f"+{self.lora}")


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Layers from `begin` up to, but without, `end`."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def __str__(self) -> str:
        return f"[{self.begin}, {self.end}]"


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Some layers of a model, or all of them (None)."""

    model: ModelName
    layers: LayerRange | None
    parameters: Parameters = field(default_factory=no_parameters)
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """Layers of the output, each made of one layer of every source."""

    sources: tuple[SliceSource, ...]
    base: ModelName | None = None
    parameters: Parameters = field(default_factory=no_parameters)
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Module:
    """A part of the output, as slices or as whole models (one slice of all their layers)."""

    slices: tuple[OutputSlice, ...]
    whole: bool
    parameters: Parameters = field(default_factory=no_parameters)
    place: Place = field(default=NOWHERE, compare=False)


class TokenSourceKind(StrEnum):
    """Where a token's embedding is taken from."""

    MODEL = "model"
    MODEL_TOKEN = "model_token"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class TokenSource:
    """The embedding of the same token in `model`, of another one there, or zeros."""

    kind: TokenSourceKind
    model: ModelName | None = None
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRule:
    """What a recipe says of one token; `force`: for models that have it as well."""

    token: str
    source: TokenSource | None
    force: bool = False


class Vocabulary(StrEnum):
    """A vocabulary that is not one model's."""

    BASE = "base"
    UNION = "union"


@dataclass(frozen=True, slots=True)
class TokenizerChoice:
    """Whose vocabulary the output has, and what is special about some of its tokens."""

    source: ModelName | Vocabulary
    tokens: tuple[TokenRule, ...] = ()
    pad_to_multiple_of: int | None = None
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """One document: a merge. Later stages name it by `name`; the last one without is the output.

    modules  by name; the only one of a recipe with `models` or `slices` is called None
    budget, budget_total, max_share  of the whole recipe, where this is its output
    """

    method: str
    modules: Mapping[str | None, Module]
    name: str | None = None
    base: ModelName | None = None
    dtype: DType | None = None
    out_dtype: DType | None = None
    parameters: Parameters = field(default_factory=no_parameters)
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    budget: str | None = None
    budget_total: str | None = None
    max_share: str | None = None
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def models(self) -> tuple[ModelName, ...]:
        """Every model that is named as an input or a base, once, in the order of their mention."""
        named = [
            source.model
            for module in self.modules.values()
            for part in module.slices
            for source in part.sources
        ]
        bases = [part.base for module in self.modules.values() for part in module.slices]
        named += [base for base in (self.base, *bases) if base is not None]
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class MergekitRecipe:
    """A file: its stages, each after those it takes in; the last is the output.

    text      as it was read
    source    what the file is called in messages
    warnings  what is in it without effect, as mergekit would silently have it
    unused    the stages that the output does not need, by name
    """

    stages: tuple[Stage, ...]
    text: str
    source: str
    warnings: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def output(self) -> Stage:
        """The stage whose result the merge is."""
        return self.stages[-1]

    def with_stages(self, stages: tuple[Stage, ...]) -> Self:
        """The recipe with these stages instead."""
        return replace(self, stages=stages)
