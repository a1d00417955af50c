"""Doing one unit of work: blocks in, merged and named blocks out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mergepipe.dtypes import F32, F64
from mergepipe.engine.encoding import BaseBlock, OutputEncoder
from mergepipe.engine.factors import product_values
from mergepipe.engine.meter import Meter
from mergepipe.engine.reading import BlockSource, FetchedBlocks, RepairedBlocks, joined
from mergepipe.engine.work import (
    Adapted,
    Computed,
    Estimate,
    Input,
    Making,
    Piece,
    Step,
    Weights,
    Work,
)
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, block_id
from mergepipe.methods import SAME, Coarse, Delta, Full, Term, Unit, find, merge
from mergepipe.methods.terms import view_bytes
from mergepipe.objects.grid import spans
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.storage import Storage
from mergepipe.values import decode


@dataclass(frozen=True, slots=True)
class Result:
    """A step's output blocks; `encoded` is None for one that is not to be stored, or the base's."""

    step: Step
    blocks: tuple[BlockId, ...]
    encoded: tuple[EncodedBlock | None, ...]


Made = TypeVar("Made")


def over_units(
    work: Work,
    storage: Storage,
    meter: Meter,
    make: Callable[[Step, Unit], Made],
    device: str = "cpu",
) -> list[Made]:
    """What `make` makes of every step's unit, in order.

    If a record turns out damaged or gone, all of it is done again from whatever other copies and
    encodings the store has. Raises Corruption, MissingObject when there are none.
    """
    try:
        return _over(work, FetchedBlocks(work, storage.store, meter), make, device)
    except (Corruption, FileNotFoundError):
        return _over(work, RepairedBlocks(work, storage, meter), make, device)


def _over(
    work: Work, source: BlockSource, make: Callable[[Step, Unit], Made], device: str
) -> list[Made]:
    results = []
    for group in work.groups:
        source.fetch(group)
        for step in group.steps:
            results.append(make(step, _Assembly(step, work, source, device).unit(step.making)))
            source.done(step)
    return results


class _Assembly:
    """A step's bytes in hand: units, of its own line and of those under it."""

    def __init__(self, step: Step, work: Work, source: BlockSource, device: str) -> None:
        self._step = step
        self._work = work
        self._source = source
        self._device = device
        self._made: dict[int, Full] = {}

    def unit(self, making: Making) -> Unit:
        """What makes the step's range of a line."""
        task = making.task
        base = None
        if making.base is not None:
            found = self._term(making.base)
            assert isinstance(found, Full)
            base = found
        return Unit(
            self._step.start,
            self._step.length,
            base,
            tuple(self._term(one) for one in making.inputs),
            task.scalars,
            task.dtype,
            task.seed,
            task.tensor_key,
            task.row_length,
            task.slab_length,
        )

    def _term(self, one: Input) -> Term:
        match one:
            case Weights():
                data = joined(self._source, one)
                return Delta(data, one.dtype) if one.delta else Full(data, one.dtype)
            case Estimate():
                return Coarse(self._source.trits(one, self._step.length), one.magnitude)
            case Computed():
                return self._computed(one.making)
            case Adapted():
                return self._adapted(one)
            case _:
                return SAME

    def _computed(self, making: Making) -> Full:
        """What another line makes of the same range, once for all that take it in."""
        found = self._made.get(making.task.number)
        if found is None:
            task = making.task
            out = np.empty(self._step.length * task.dtype.bits // 8, np.uint8).data
            merge(find(task.method), self.unit(making), out, device=self._device)
            found = self._made[task.number] = Full(out, task.dtype)
        return found

    def _adapted(self, one: Adapted) -> Term:
        """Weights with a product added, or the product alone, as float32."""
        product = one.product
        factors = self._work.factors
        change = product_values(
            product,
            factors[product.up],
            factors[product.down],
            self._step.start,
            self._step.length,
        )
        if one.of is None:
            return Delta(change, F32)
        under = self._term(one.of)
        assert isinstance(under, Full)
        values = decode(under.dtype, view_bytes(under.data).data)
        if under.dtype == F64:
            return Full(values + change, F64)
        return Full(values.astype(np.float32, copy=False) + change, F32)


@dataclass(frozen=True, slots=True)
class Worker:
    """Does work, on any thread. `device` is where the arithmetic runs: `cpu`, `cuda`..."""

    storage: Storage
    meter: Meter
    encoder: OutputEncoder
    device: str = "cpu"

    def __call__(self, work: Work) -> list[Result]:
        """The results of a work's steps, in order. Raises as `over_units` does."""
        return over_units(
            work,
            self.storage,
            self.meter,
            lambda step, unit: self._make(work, step, unit),
            self.device,
        )

    def _make(self, work: Work, step: Step, unit: Unit) -> Result:
        out = np.empty(step.output_bytes, np.uint8).data
        merge(find(step.task.method), unit, out, device=self.device)
        pieces = step.making.base.pieces if isinstance(step.making.base, Weights) else ()
        found = []
        for number, (begin, end) in enumerate(spans(step.output_bytes, step.block_bytes)):
            piece = pieces[number] if len(pieces) == step.blocks else None
            found.append(self._named(work, step, unit, out[begin:end], begin, piece))
        return Result(step, tuple(one for one, _ in found), tuple(one for _, one in found))

    def _named(
        self, work: Work, step: Step, unit: Unit, out: memoryview, begin: int, piece: Piece | None
    ) -> tuple[BlockId, EncodedBlock | None]:
        """One output block; `piece`: of the base that lies under it, if one does."""
        identity = block_id(out)
        if piece is not None and identity == piece.block:
            return identity, None
        if not work.encode:
            return identity, None
        under, base = None, unit.base
        same = base is not None and base.dtype == step.task.dtype
        if same and piece is not None and piece.whole and piece.length == len(out):
            assert base is not None
            raw = view_bytes(base.data).data[begin : begin + len(out)]
            under = BaseBlock(piece.block, raw, _links(work, piece.block))
        return identity, self.encoder.encode(identity, out, step.task.dtype, under)


def _links(work: Work, block: BlockId) -> int:
    """How many bases lie under a block as it is stored."""
    links = 0
    base = work.encodings[block].base
    while base is not None:
        links += 1
        base = work.encodings[base].base
    return links
