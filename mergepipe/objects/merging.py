"""The objects a merge is made of: profile, plan and manifest (docs/format-merge.md).

Columns are little-endian arrays kept as bytes; `catalog.view` and the planner give them shape.
"""

from enum import IntEnum
from typing import ClassVar

import msgspec

from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Record


class Depth(IntEnum):
    """How deep a plan reads an expert's block."""

    OMITTED = 0
    COARSE = 1
    EXACT = 2
    EQUAL = 3


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what objects are made of."""


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


class PlanExpert(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One input of a plan. `profile` is named where one of its blocks is not read exactly."""

    snapshot: ObjectId
    profile: ObjectId | None
    kind: TermKind = TermKind.FULL


class PlanScalars(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One expert's resolved numbers for one tensor (methods.terms.ExpertScalars)."""

    weight: float
    threshold: float
    coarse_scale: float
    density: float
    rescale: float


class LowRank(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A low-rank difference: `scale` times the product of two stored tensors, up @ down."""

    up: ObjectId
    down: ObjectId
    scale: float


class TensorPlan(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How one output tensor is made. Without `depths` it is the tensor `base`, as it stands."""

    file: str
    name: str
    dtype: str
    base: ObjectId | None
    experts: tuple[ObjectId | None, ...]
    depths: tuple[bytes, ...]
    elect: bool
    normalize: bool
    scale: float
    scalars: tuple[PlanScalars, ...]
    factors: tuple[LowRank | None, ...] = ()


class Plan(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How deep to read each block of each expert, and what to do with it."""

    KIND: ClassVar[str] = "plan"
    VERSION: ClassVar[int] = 1

    method: str
    version: int
    seed: int
    layout: ObjectId
    base: ObjectId | None
    experts: tuple[PlanExpert, ...]
    tensors: tuple[TensorPlan, ...]


class ExpertUse(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many of an expert's blocks were used at each depth, and their raw bytes."""

    exact: int
    coarse: int
    omitted: int
    equal: int
    logical_bytes: int


class TensorManifest(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One output tensor and what it was made of."""

    name: str
    tensor: ObjectId
    experts: tuple[ExpertUse, ...]


class Manifest(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a merge was made of. Follows from its plan and output alone."""

    KIND: ClassVar[str] = "manifest"
    VERSION: ClassVar[int] = 1

    plan: ObjectId
    method: str
    seed: int
    layout: ObjectId
    base: ObjectId | None
    experts: tuple[ObjectId, ...]
    output: ObjectId
    tensors: tuple[TensorManifest, ...]

    @property
    def manifest_hash(self) -> str:
        """The manifest's id, in hex."""
        return object_id(encode(self)).hex()
