"""Units of merge work: plain frozen values, runnable anywhere that can read the blocks, any time.

A `Step` makes one output block, or a few where a method takes whole rows or the whole tensor; what
earlier lines make is computed inside it. A `Work` is a few neighbouring steps with the places of
all records that they read, so that reads per pack can be joined; running it twice gives the same
bytes and changes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct, field

from mergepipe.dtypes import DType
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import Scalars
from mergepipe.packs.records import Encoding, Location
from mergepipe.reprs import brief


class Piece(Struct, frozen=True, gc=False):
    """Bytes `begin` to `end` of a block of `length` bytes."""

    block: BlockId
    begin: int
    end: int
    length: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the block."""
        return self.begin == 0 and self.end == self.length


class Weights(Struct, frozen=True, gc=False):
    """An input read exactly: the pieces that make up the step's range, in order; or a delta."""

    pieces: tuple[Piece, ...]
    dtype: DType
    delta: bool = False


class Estimate(Struct, frozen=True, gc=False):
    """An input read coarsely: the trits of `block` against `base`, times `magnitude`.

    `digest` is the BLAKE3 that the packed trits must have; |d| of at least `threshold` has a trit.
    """

    block: BlockId
    base: BlockId
    magnitude: float
    threshold: float
    digest: bytes
    dtype: DType


class Unchanged(Struct, frozen=True):
    """An input without a delta: equal to the base, left out by the plan, or missing."""


UNCHANGED = Unchanged()


class Factor(Struct, frozen=True):
    """One of two low-rank factors, a stored matrix of rows x columns."""

    blocks: tuple[BlockId, ...]
    dtype: DType
    rows: int
    columns: int


class Product(Struct, frozen=True):
    """A low-rank difference: scale * up @ down, or its transpose; of the whole tensor."""

    up: Factor
    down: Factor
    scale: float
    transposed: bool


class Adapted(Struct, frozen=True):
    """An input changed by low-rank factors: weights and a product, or (of None) a product alone."""

    of: "Weights | Computed | None"
    product: Product


class Computed(Struct, frozen=True):
    """An input that another line makes, for the same elements."""

    making: "Making"


@brief
class Summed(Struct, frozen=True):
    """The first `count` inputs of a sum, as an earlier merge had them: float32 (`partial_sums`).

    deltas: a sum of differences from the base, else of weights
    """

    data: bytes
    count: int
    deltas: bool


Input: TypeAlias = Weights | Estimate | Unchanged | Adapted | Computed | Summed


class LineTask(Struct, frozen=True):
    """What all steps of one line share: everything resolved, nothing to look up.

    number       of the line in the plan
    row_length   elements of a row; slab_length: under one index of the first dimension
    """

    number: int
    name: str
    method: str
    scalars: Scalars
    dtype: DType
    seed: int
    tensor_key: int
    row_length: int
    slab_length: int


class Making(Struct, frozen=True):
    """How a range of one line is made. `base`: None where the result does not depend on it."""

    task: LineTask
    base: Input | None
    inputs: tuple[Input, ...]

    def inner(self) -> "list[Making]":
        """Itself, and how the lines under it are made; one that is taken in twice comes twice."""
        makings = [self]
        for one in (self.base, *self.inputs):
            if isinstance(one, Adapted):
                one = one.of
            if isinstance(one, Computed):
                makings += one.making.inner()
        return makings

    def terms(self) -> "Iterator[Input]":
        """Every input at any depth, bases among them: what is to be read or computed."""
        for making in self.inner():
            if making.base is not None:
                yield making.base
            yield from making.inputs

    def products(self) -> "Iterator[Product]":
        """Every low-rank difference in it."""
        for making in self.inner():
            for term in (making.base, *making.inputs):
                if isinstance(term, Adapted):
                    yield term.product

    def blocks(self) -> "Iterator[BlockId]":
        """Every block that goes in, in order; those that others lean on, and factors, aside."""
        for term in self.terms():
            whole = term.of if isinstance(term, Adapted) else term
            if isinstance(whole, Weights):
                yield from (piece.block for piece in whole.pieces)
            elif isinstance(whole, Estimate):
                yield whole.block


class Step(Struct, frozen=True):
    """Output blocks [index, index + blocks) of a tensor, elements [start, start + length).

    block_bytes  of the output: where its blocks end
    under        the bases' blocks under the range, whether they are used or only leaned on
    memo         key under which the result is remembered
    sums         keys of sums to keep, by how many of the inputs are in them
    """

    making: Making
    index: int
    blocks: int
    start: int
    length: int
    block_bytes: int
    under: tuple[BlockId, ...]
    memo: bytes
    sums: tuple[tuple[int, str], ...] = ()

    @property
    def task(self) -> LineTask:
        """Of the line whose blocks it makes."""
        return self.making.task

    @property
    def output_bytes(self) -> int:
        """Raw size of the blocks it makes."""
        return self.length * self.task.dtype.bits // 8


class Permit(Struct, frozen=True):
    """What may be read: blocks by the depth the plan gives them, and the bases they lean on."""

    base: frozenset[BlockId]
    exact: frozenset[BlockId]
    coarse: frozenset[BlockId]


class Group(Struct, frozen=True):
    """Steps whose records are fetched together, and the records that no group before them has."""

    steps: tuple[Step, ...]
    records: tuple[Location, ...]


class Work(Struct, frozen=True):
    """A unit of work.

    encodings  how each block that is read exactly is stored, and every base it leans on
    coarse     the chain of coarse layers of (block, base), the block's own first; an estimate
               without one is derived exactly
    factors    the bytes of every factor
    encode     whether results are to be encoded for storage, or only named
    """

    plan: ObjectId
    groups: tuple[Group, ...]
    encodings: Mapping[BlockId, Encoding]
    coarse: Mapping[tuple[BlockId, BlockId], tuple[Location, ...]]
    permit: Permit
    factors: Mapping[Factor, bytes] = field(default_factory=dict)
    encode: bool = True

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(step for group in self.groups for step in group.steps)

    @property
    def output_bytes(self) -> int:
        """Raw size of all blocks it makes."""
        return sum(step.output_bytes for step in self.steps)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that it makes blocks of."""
        return tuple(dict.fromkeys(step.task.name for step in self.steps))
