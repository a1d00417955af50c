"""The objects a merge is made of: profile, plan and manifest (docs/format-merge.md).

Columns are little-endian arrays kept as bytes; `catalog.view` and the planner give them shape.
"""

from enum import IntEnum
from typing import ClassVar

from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Part, Record


class TensorProfile(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One tensor's statistics against its base, in columns of one entry per block."""

    name: str
    tensor: ObjectId
    base: ObjectId
    energies: bytes
    changed: bytes
    largest: bytes
    thresholds: bytes
    magnitudes: bytes
    kept: bytes
    coarse: bytes
    values: bytes
    counts: bytes
    signs: bytes


class Profile(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The statistics of one snapshot against its base."""

    KIND: ClassVar[str] = "profile"
    VERSION: ClassVar[int] = 1

    snapshot: ObjectId
    base: ObjectId
    tensors: tuple[TensorProfile, ...]


class TermKind(IntEnum):
    """What an expert's tensors hold: weights, differences from the base, or factors of them."""

    FULL = 0
    DELTA = 1
    LOW_RANK = 2


class LowRank(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A low-rank difference: `scale` times the product of two stored tensors, up @ down.

    transposed  the difference is the product turned round: up and down are those of the transpose
    """

    up: ObjectId
    down: ObjectId
    scale: float
    transposed: bool = False


class PlanProfile(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The profile of a model against another (places among the plan's models)."""

    model: int
    base: int
    profile: ObjectId


class LineNumbers(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A line's resolved numbers, all of them; docs/format-merge.md says what each does."""

    elect: bool
    normalize: bool
    scale: float
    extras: tuple[float, ...]


class InputNumbers(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An input's resolved numbers, all of them; docs/format-merge.md says what each does."""

    weight: float
    threshold: float
    coarse_scale: float
    density: float
    rescale: float
    ceiling: float


class PlanInput(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One term of a line, or its base.

    model    place among the plan's models, -1 for a tensor that a line makes
    source   a stored tensor, the number of the line that makes it, or None: it is not there
    """

    model: int
    source: ObjectId | int | None
    kind: TermKind = TermKind.FULL
    factors: LowRank | None = None

    @property
    def stored(self) -> ObjectId | None:
        """The stored tensor, if it is one."""
        return self.source if isinstance(self.source, bytes) else None

    @property
    def made(self) -> int | None:
        """The line that makes it, if one does."""
        return self.source if isinstance(self.source, int) else None


class LinePlan(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How one tensor is made. With `copied` it is that stored tensor, and has no depths."""

    file: str | None
    name: str
    like: ObjectId
    dtype: str
    method: str
    version: int
    base: PlanInput | None
    inputs: tuple[PlanInput, ...]
    copied: ObjectId | None = None
    depths: tuple[bytes, ...] = ()
    numbers: LineNumbers | None = None
    input_numbers: tuple[InputNumbers, ...] = ()


class Plan(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How deep to read each block of each input, and what to do with it."""

    KIND: ClassVar[str] = "plan"
    VERSION: ClassVar[int] = 3

    seed: int
    layout: ObjectId
    base: ObjectId | None
    models: tuple[ObjectId, ...]
    profiles: tuple[PlanProfile, ...]
    lines: tuple[LinePlan, ...]

    @property
    def method(self) -> str:
        """What its lines do: the name of their method, or of each in the order of first use."""
        return ", ".join(dict.fromkeys(line.method for line in self.lines))

    @property
    def made(self) -> tuple[LinePlan, ...]:
        """The lines that files hold, in the order of the layout."""
        return tuple(line for line in self.lines if line.file is not None)

    @property
    def experts(self) -> tuple[int, ...]:
        """The models that are merged: all but those that are only leaned on."""
        merged = {term.model for line in self.lines for term in line.inputs}
        bases = {line.base.model for line in self.lines if line.base is not None}
        return tuple(
            place for place in range(len(self.models)) if place in merged or place not in bases
        )


class InputUse(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many blocks of a model's tensor were used at each depth, and their raw bytes."""

    model: int
    exact: int
    coarse: int
    omitted: int
    equal: int
    logical_bytes: int


class TensorManifest(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One output tensor and what it was made of; `inputs` are those of models, at any stage."""

    name: str
    tensor: ObjectId
    inputs: tuple[InputUse, ...]


class Manifest(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a merge was made of. Follows from its plan and output alone."""

    KIND: ClassVar[str] = "manifest"
    VERSION: ClassVar[int] = 2

    plan: ObjectId
    method: str
    seed: int
    layout: ObjectId
    base: ObjectId | None
    models: tuple[ObjectId, ...]
    output: ObjectId
    tensors: tuple[TensorManifest, ...]

    @property
    def manifest_hash(self) -> str:
        """The manifest's id, in hex."""
        return object_id(encode(self)).hex()
