"""Units of merge work: plain frozen values, runnable anywhere that can read the blocks, any time.

A `Step` makes one output block. A `Work` is a few neighbouring steps with the places of all records
that they read, so that reads per pack can be joined; running it twice gives the same bytes and
changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mergepipe.dtypes import DType
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import Scalars
from mergepipe.objects.merging import TermKind
from mergepipe.packs.encodings import Encoding
from mergepipe.packs.index import Location


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `begin` to `end` of a block of `length` bytes."""

    block: BlockId
    begin: int
    end: int
    length: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the block."""
        return self.begin == 0 and self.end == self.length


@dataclass(frozen=True, slots=True)
class Weights:
    """An input read exactly: the pieces that make up the step's range, in order."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An input read coarsely: the trits of `block` against `base`, times `magnitude`.

    `digest` is the BLAKE3 that the packed trits must have; |d| of at least `threshold` has a trit.
    """

    block: BlockId
    base: BlockId
    magnitude: float
    threshold: float
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An input without a delta: equal to the base, left out by the plan, or missing."""


UNCHANGED = Unchanged()
Input: TypeAlias = Weights | Estimate | Unchanged


@dataclass(frozen=True, slots=True)
class TensorTask:
    """What all steps of one tensor share: everything resolved, nothing to look up.

    number       place of the tensor in the plan
    experts      dtype of each expert's tensor; None where it has none
    kinds        what they hold
    row_length   elements of a row
    """

    number: int
    name: str
    method: str
    scalars: Scalars
    dtype: DType
    base: DType | None
    experts: tuple[DType | None, ...]
    kinds: tuple[TermKind, ...]
    seed: int
    tensor_key: int
    row_length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One output block: elements [start, start + length) of a tensor, block `index` of its grid.

    base   None where the result does not depend on it
    under  the base's blocks under the range, whether they are used or only leaned on
    memo   key under which the result is remembered
    """

    task: TensorTask
    index: int
    start: int
    length: int
    base: Weights | None
    inputs: tuple[Input, ...]
    under: tuple[BlockId, ...]
    memo: bytes

    @property
    def output_bytes(self) -> int:
        """Raw size of the block it makes."""
        return self.length * self.task.dtype.bits // 8


@dataclass(frozen=True, slots=True)
class Permit:
    """What may be read: blocks by the depth the plan gives them, and the bases they lean on."""

    base: frozenset[BlockId]
    exact: frozenset[BlockId]
    coarse: frozenset[BlockId]


@dataclass(frozen=True, slots=True)
class Group:
    """Steps whose records are fetched together, and the records that no group before them has."""

    steps: tuple[Step, ...]
    records: tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """A unit of work.

    encodings  how each block that is read exactly is stored, and every base it leans on
    coarse     the coarse layer of (block, base); an estimate without one is derived exactly
    encode     whether results are to be encoded for storage, or only named
    """

    plan: ObjectId
    groups: tuple[Group, ...]
    encodings: Mapping[BlockId, Encoding]
    coarse: Mapping[tuple[BlockId, BlockId], Location]
    permit: Permit
    encode: bool = True

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(step for group in self.groups for step in group.steps)
