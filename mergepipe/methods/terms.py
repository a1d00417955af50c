"""What a merge takes in for one element range: terms, resolved scalars, and the unit they form.

Values only: buffers the caller owns, floats and ints. Nothing here reads, stores or computes.
"""

from math import inf
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from mergepipe.dtypes import F32, DType
from mergepipe.errors import MergeInputError

Buffer: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]

TRITS_PER_BYTE = 5
# Row b: the five signs that byte b of a coarse term stands for; 243 and above stand for none.
SIGNS = np.zeros((256, TRITS_PER_BYTE), np.int8)
SIGNS[:243] = np.array([0, -1, 1], np.int8)[
    np.arange(243)[:, None] // 3 ** np.arange(TRITS_PER_BYTE) % 3
]
SIGNS.flags.writeable = False


class Full(Struct, frozen=True, eq=False):
    """Weights themselves: the range's raw little-endian bytes."""

    data: Buffer
    dtype: DType


class Delta(Struct, frozen=True, eq=False):
    """Differences from the base, raw bytes (float32 by default); also low-rank products."""

    data: Buffer
    dtype: DType = F32


class Coarse(Struct, frozen=True, eq=False):
    """An estimate of the delta: 0, - or + times one magnitude.

    trits  five to a byte, the first in the lowest place: byte = sum t_k 3^k, t 0: 0, 1: -, 2: +
           (bytes of 243 and above stand for zeros)
    skip   trits of the first byte that belong to the elements before the range, 0 to 4
    """

    trits: Buffer
    magnitude: float
    skip: int = 0


class Same(Struct, frozen=True):
    """No delta: the expert's block equals the base's, or was left out by the plan."""


SAME = Same()
Term: TypeAlias = Full | Delta | Coarse | Same


class ExpertScalars(Struct, frozen=True):
    """One expert's resolved numbers for one tensor; a sweep uses the ones its formula has.

    weight        w_i, any sign
    threshold     trim: keep |d| >= threshold, ties included; 0 keeps all, inf keeps none
    ceiling       trim: keep |d| <= ceiling, ties included; not applied to a coarse term either
    coarse_scale  times a coarse term's magnitude (its trim; the threshold is not applied to it)
    density       chance of each element to survive a random mask (della: their mean); 1: no mask
    rescale       times every element that is left, in the numerator only
    """

    weight: float = 1.0
    threshold: float = 0.0
    coarse_scale: float = 1.0
    density: float = 1.0
    rescale: float = 1.0
    ceiling: float = inf


class Scalars(Struct, frozen=True):
    """All resolved numbers of one tensor's merge.

    elect      keep only what agrees with the elected sign
    normalize  divide by the sum of the weights (of those kept, where signs are elected)
    scale      lambda, times the merged delta
    extras     what a sweep has besides, in an order of its own: numbers of the whole tensor, or of
               each expert or column in turn. As much a part of the result as all the others
    divisor    of a plain sum, where its terms do not tell; None: what `normalize` says
    """

    experts: tuple[ExpertScalars, ...]
    elect: bool = False
    normalize: bool = False
    scale: float = 1.0
    extras: tuple[float, ...] = ()
    divisor: float | None = None

    @classmethod
    def plain(cls, count: int) -> Self:
        """Weights of 1 and nothing else, for units that only statistics look at."""
        return cls((ExpertScalars(),) * count)


class Unit(Struct, frozen=True, eq=False):
    """One piece of merge work: elements [start, start + length) of one tensor.

    terms       one per model, in the order of the recipe (its place is the expert's index)
    dtype       of the output, rounded once
    seed, tensor_key  key the random masks, with the expert's index and the element's
    row_length  elements per row of the tensor (its last dimension), for what is of row scope
    slab_length elements under one index of the tensor's first dimension (1 for vectors, the row's
                for matrices), for columns: elements a multiple of it apart
    """

    start: int
    length: int
    base: Full | None
    terms: tuple[Term, ...]
    scalars: Scalars
    dtype: DType
    seed: int = 0
    tensor_key: int = 0
    row_length: int = 0
    slab_length: int = 0

    def part(self, begin: int, end: int) -> Self:
        """Elements [begin, end) of the unit's own, as a unit over the same buffers."""
        base = None if self.base is None else _part(self.base, begin, end)
        assert base is None or isinstance(base, Full)
        terms = tuple(_part(term, begin, end) for term in self.terms)
        start, length = self.start + begin, end - begin
        return replace(self, start=start, length=length, base=base, terms=terms)

    def check(self) -> None:
        """Raise MergeInputError where buffers, counts and lengths do not fit each other."""
        if self.start < 0 or self.length < 0:
            raise MergeInputError(f"range of {self.length} elements from {self.start}")
        if len(self.terms) != len(self.scalars.experts):
            raise MergeInputError(
                f"{len(self.terms)} terms, but scalars for {len(self.scalars.experts)} experts"
            )
        if self.base is not None:
            _check_bytes("base", self.base.data, self.base.dtype, self.length)
        for index, term in enumerate(self.terms):
            if isinstance(term, Full | Delta):
                _check_bytes(f"expert {index}", term.data, term.dtype, self.length)
            elif isinstance(term, Coarse):
                _check_trits(index, term, self.length)
            if self.base is None and not isinstance(term, Full):
                raise MergeInputError(
                    f"expert {index} is given as {type(term).__name__.lower()}, without a base",
                    "only full weights can do without one",
                )


def _part(term: Term, begin: int, end: int) -> Term:
    if isinstance(term, Full | Delta):
        # Packed dtypes can be cut where their elements fill whole bytes, and are never computed.
        if begin * term.dtype.bits % 8 or end * term.dtype.bits % 8:
            raise MergeInputError(f"{term.dtype} cannot be cut at elements {begin} to {end}")
        first, last = begin * term.dtype.bits // 8, end * term.dtype.bits // 8
        return replace(term, data=view_bytes(term.data)[first:last])
    if isinstance(term, Coarse):
        place = term.skip + begin
        first, last = place // TRITS_PER_BYTE, -(-(term.skip + end) // TRITS_PER_BYTE)
        trits = view_bytes(term.trits)[first:last]
        return replace(term, trits=trits, skip=place % TRITS_PER_BYTE)
    return term


def view_bytes(data: Buffer) -> npt.NDArray[np.uint8]:
    """The bytes of a buffer, not copied (arrays that are not contiguous are)."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _nbytes(data: Buffer) -> int:
    return len(data) if isinstance(data, bytes | bytearray) else data.nbytes


def _check_bytes(who: str, data: Buffer, dtype: DType, length: int) -> None:
    held = _nbytes(data)
    if held * 8 != length * dtype.bits:
        raise MergeInputError(f"{who}: {held} bytes for {length} elements of {dtype}")


def _check_trits(index: int, term: Coarse, length: int) -> None:
    if not 0 <= term.skip < TRITS_PER_BYTE:
        raise MergeInputError(f"expert {index}: {term.skip} trits to skip")
    held = _nbytes(term.trits) * TRITS_PER_BYTE
    if held < term.skip + length:
        raise MergeInputError(f"expert {index}: {held} trits for {term.skip} + {length} elements")
