"""A model as expansion sees it: tensors by name and by layer, and where each comes from.

A stored model, a model with an adapter on it, an adapter alone, and the result of an earlier stage
all look alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mergepipe.dtypes import DType
from mergepipe.formats.architecture import (
    DEFAULT,
    TEXT,
    Architecture,
    Section,
    head_and_embeddings,
)
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import LowRank
from mergepipe.planner.lines import Source

# A tensor's key in its section -> its name.
Keys = Mapping[str, str]
_NONE: Keys = {}


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that a model has.

    source   None: there are only `factors` (an adapter by itself)
    like     a stored tensor with its shape and block grid
    model    the place among the merge's models of the one that holds it; -1: a line makes it
    factors  a low-rank change: of the source, or by itself
    adapter  the place of the adapter that the factors are from, or that the source was made for
    """

    source: Source | None
    like: ObjectId
    shape: tuple[int, ...]
    dtype: DType
    model: int
    factors: LowRank | None = None
    adapter: int = -1


@dataclass(frozen=True, slots=True)
class Inventory:
    """A model: its label, its tensors, which layer they belong to, and its config.json.

    place         among the merge's models; -1 for the result of a stage
    files_of      the place of the stored model whose other files it has
    changes_only  an adapter by itself: tensors that it lacks are not changed by it
    generation    its generation_config.json
    moved         whether layers stand elsewhere than in the model whose files it has
    """

    label: str
    place: int
    files_of: int
    tensors: Mapping[str, Held]
    architecture: Architecture
    config: Mapping[str, Any] | None
    changes_only: bool = False
    generation: Mapping[str, Any] | None = None
    moved: bool = False
    _sections: dict[tuple[str, Section, int], dict[str, str]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for name in self.tensors:
            spot = self.architecture.spots[name]
            section = self._sections.setdefault((spot.module, spot.section, spot.layer), {})
            section[spot.key] = name

    def section(self, module: str, section: Section, layer: int = -1) -> Keys:
        """The tensors of a layer, or of what comes before or after the layers."""
        return self._sections.get((self._module(module), section, layer), _NONE)

    def layers(self, module: str) -> int:
        """How many layers a module has."""
        return self.architecture.layers(self._module(module))

    def has(self, module: str) -> bool:
        """Whether there are tensors of a module."""
        return self._module(module) in self.architecture.modules

    def is_text_of(self, other: "Inventory") -> bool:
        """Whether it is a language model alone, and the other one of several modules."""
        return self.architecture.modules == (DEFAULT,) and TEXT in other.architecture.modules

    def _module(self, module: str) -> str:
        """What it is called here: a language model alone is the text decoder of a larger one."""
        modules = self.architecture.modules
        if module == TEXT and modules == (DEFAULT,):
            return DEFAULT
        if module == DEFAULT and TEXT in modules:
            return TEXT
        return module

    @property
    def head(self) -> str | None:
        """The name of the output embeddings, if the model has its own."""
        return head_and_embeddings(self.architecture)[0]

    @property
    def tied_head(self) -> str | None:
        """The name of the input embeddings, where they are the output embeddings too."""
        head, embeddings = head_and_embeddings(self.architecture)
        return embeddings if head is None and self.architecture.tied else None
