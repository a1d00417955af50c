"""From a planned line to steps: one output block each, or blocks that are known without work."""

from collections.abc import Collection, Iterator, Mapping
from math import lcm
from typing import TypeAlias

from msgspec import Struct

from mergepipe.engine.estimates import CoarseColumns
from mergepipe.engine.grids import InputTensor
from mergepipe.engine.memo import Head, memo_key
from mergepipe.engine.work import (
    UNCHANGED,
    Adapted,
    Computed,
    Input,
    LineTask,
    Making,
    Piece,
    Product,
    Step,
    Weights,
)
from mergepipe.errors import MergeInputError
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import Method
from mergepipe.names import quoted
from mergepipe.objects.depths import Depth
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import TermKind
from mergepipe.plans.units import together
from mergepipe.reprs import brief

AGAIN = "make the plan again"
_READ = frozenset((Depth.COARSE, Depth.EXACT))
_COARSE = frozenset((Depth.COARSE,))
_EXACT = frozenset((Depth.EXACT, Depth.EQUAL))
# An input that is there, to be read or computed.
Present: TypeAlias = Weights | Computed | Adapted


class Known(Struct, frozen=True):
    """Output blocks that need no work, from number `index` on: the base's."""

    index: int
    blocks: tuple[BlockId, ...]


class KeptTensor(Struct, frozen=True):
    """An output tensor that is one of the inputs', as it stands."""

    tensor: ObjectId


class LaidInput(Struct, frozen=True):
    """One input of a line, or its base: a stored tensor, what another line makes, or neither."""

    source: "InputTensor | MergedTensor | None"
    kind: TermKind = TermKind.FULL
    product: Product | None = None
    columns: CoarseColumns | None = None

    @property
    def stored(self) -> InputTensor | None:
        """The stored tensor, if it is one as it stands."""
        plain = isinstance(self.source, InputTensor) and self.product is None
        return self.source if plain and isinstance(self.source, InputTensor) else None


@brief
class MergedTensor(Struct, frozen=True):
    """A tensor that is made block by block, or unit by unit of `unit` blocks."""

    task: LineTask
    shape: tuple[int, ...]
    block_bytes: int
    grid: Grid
    method: Method
    base: LaidInput | None
    inputs: tuple[LaidInput, ...]
    depths: tuple[bytes, ...]
    unit: int
    heads: Mapping[int, Head]

    @property
    def together(self) -> int:
        """How many blocks one work has to make, because an input's block serves several of them."""
        return lcm(self.unit, together(self.grid, (tensor.grid for tensor in self.tensors())))

    def tensors(self) -> Iterator[InputTensor]:
        """All stored tensors that it is made of."""
        for one in (self.base, *self.inputs):
            if one is not None and isinstance(one.source, InputTensor):
                yield one.source
            elif one is not None and isinstance(one.source, MergedTensor):
                yield from one.source.tensors()

    def steps(self) -> Iterator[Step | Known]:
        """What makes each unit, in order."""
        for first in range(0, self.grid.blocks, self.unit):
            yield self.step(first)

    def step(self, index: int) -> Step | Known:
        """What makes the unit that begins with block `index`."""
        count, start, end = self._span(index)
        term = self.made(start, end)
        if isinstance(term, Weights) and all(piece.whole for piece in term.pieces):
            pieces = term.pieces
            lengths = [self.grid.span(index + number) for number in range(count)]
            width = self.task.dtype.bits // 8
            if [piece.end for piece in pieces] == [(b - a) * width for a, b in lengths]:
                return Known(index, tuple(piece.block for piece in pieces))
        if isinstance(term, Computed) and term.making.task is self.task:
            return self._step(index, term.making)
        # The base, but in other pieces than the output's, or made by another line.
        base = self._base(start, end)
        return self._step(index, Making(self.task, base, (UNCHANGED,) * len(self.inputs)))

    def reading(self, index: int, inputs: Collection[int], *, deltas: bool) -> Step:
        """What it takes to look at the unit of block `index` in these inputs, the others left out.

        `deltas`: at their differences from the base, which is then read too.
        """
        _, start, end = self._span(index)
        stretch = self._stretch(start, end)
        found = tuple(
            self._input(place, stretch) if place in inputs else UNCHANGED
            for place in range(len(self.inputs))
        )
        return self._step(index, self._making(stretch.base, found, needs_base=deltas))

    def made(self, start: int, end: int) -> Present:
        """What elements `start` to `end` are: made here, or the base's where nothing changes it."""
        stretch = self._stretch(start, end)
        base = stretch.base
        inputs = tuple([self._input(place, stretch) for place in range(len(self.inputs))])
        # Left out, equal by the plan, or planned exactly and equal all the same.
        if base is not None and self.method.omitted_is_noop:
            still = all(one is UNCHANGED for one in inputs)
            if still and not isinstance(base, Adapted) and _dtype(base) == self.task.dtype:
                return base
        return Computed(self._making(base, inputs, needs_base=self.method.needs_base))

    def _span(self, index: int) -> tuple[int, int, int]:
        """Of the unit that begins with block `index`: its blocks, first element, and end."""
        count = min(self.unit, self.grid.blocks - index)
        return count, self.grid.span(index)[0], self.grid.span(index + count - 1)[1]

    def _step(self, index: int, making: Making) -> Step:
        count, start, end = self._span(index)
        return Step(
            making=making,
            index=index,
            blocks=count,
            start=start,
            length=end - start,
            block_bytes=self.block_bytes,
            under=tuple(dict.fromkeys(piece.block for piece in self._under(start, end))),
            memo=memo_key(self.heads, making, start),
        )

    def _under(self, start: int, end: int) -> Iterator[Piece]:
        """The stored bases' pieces under a range, of this line and of all under it."""
        if self.base is not None and isinstance(self.base.source, InputTensor):
            yield from self.base.source.pieces(start, end)
        for one in (self.base, *self.inputs):
            if one is not None and isinstance(one.source, MergedTensor):
                yield from one.source._under(start, end)

    def _making(
        self,
        base: Present | None,
        inputs: tuple[Input, ...],
        *,
        needs_base: bool,
    ) -> Making:
        alone = not needs_base and all(_is_full(one) for one in inputs)
        if base is None and not all(_is_full(one) for one in inputs):
            raise MergeInputError(
                f"tensor {quoted(self.task.name)}: something is left out, and there is no base"
            )
        return Making(self.task, None if alone else base, inputs)

    def _base(self, start: int, end: int) -> Present | None:
        return None if self.base is None else self._read(self.base, start, end)

    def _read(self, one: LaidInput, start: int, end: int) -> Present:
        """A range of an input that is there."""
        present: Present | None = None
        if isinstance(one.source, InputTensor):
            delta = one.kind is TermKind.DELTA
            present = Weights(one.source.pieces(start, end), one.source.dtype, delta)
        elif one.source is not None:
            present = one.source.made(start, end)
        if one.product is not None:
            if isinstance(present, Adapted):
                raise MergeInputError(f"tensor {quoted(self.task.name)}: factors upon factors")
            return Adapted(present, one.product)
        assert present is not None
        return present

    def _stretch(self, start: int, end: int) -> "_Stretch":
        base, touched = self._base(start, end), self.grid.under(start, end)
        under = None
        if isinstance(base, Weights) and len(base.pieces) == 1 and base.pieces[0].whole:
            under = base.pieces[0].block
        if self.grid.span(touched.start) != (start, end):
            under = None
        return _Stretch(start, end, touched, base, under)

    def _input(self, place: int, stretch: "_Stretch") -> Input:
        one = self.inputs[place]
        depths = set(self.depths[place][stretch.touched.start : stretch.touched.stop])
        missing = one.source is None and one.product is None
        if missing or depths.isdisjoint(_READ):
            return UNCHANGED
        if depths == _COARSE:
            return self._coarse(place, stretch)
        if depths - _EXACT:
            raise MergeInputError(
                f"tensor {quoted(self.task.name)}, input {place}: several blocks are taken at "
                "once, and not all of them exactly",
                AGAIN,
            )
        term = self._read(one, stretch.start, stretch.end)
        return UNCHANGED if term == stretch.base and not isinstance(term, Adapted) else term

    def _coarse(self, place: int, stretch: "_Stretch") -> Input:
        one = self.inputs[place]
        stored = one.stored
        if stored is None or one.columns is None or stretch.under is None:
            raise MergeInputError(
                f"tensor {quoted(self.task.name)}, input {place}: nothing to read coarsely", AGAIN
            )
        index = stretch.touched.start
        return one.columns.estimate(index, stored.blocks[index], stretch.under, stored.dtype)


class _Stretch(Struct, frozen=True):
    """Elements `start` to `end` of a tensor, looked at once for all of its inputs.

    touched  blocks of the grid
    under    the base's block, where the stretch is one block of the grid and of the base
    """

    start: int
    end: int
    touched: range
    base: Present | None
    under: BlockId | None


def _is_full(one: Input) -> bool:
    """Whether an input holds weights, so that no base is needed to know them."""
    if isinstance(one, Adapted):
        return one.of is not None
    return isinstance(one, Computed) or (isinstance(one, Weights) and not one.delta)


def _dtype(one: Weights | Computed) -> object:
    return one.dtype if isinstance(one, Weights) else one.making.task.dtype
