"""Doing one unit of work: blocks in, merged and named blocks out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mergepipe.engine.encoding import BaseBlock, OutputEncoder
from mergepipe.engine.meter import Meter
from mergepipe.engine.reading import BlockSource, FetchedBlocks, RepairedBlocks, joined
from mergepipe.engine.work import Estimate, Input, Step, Weights, Work
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, block_id
from mergepipe.methods import SAME, Coarse, Delta, Full, Term, Unit, find, merge
from mergepipe.objects.merging import TermKind
from mergepipe.packs.encoding import EncodedBlock
from mergepipe.packs.storage import Storage


@dataclass(frozen=True, slots=True)
class Result:
    """A step's output block; `encoded` is None where it is not to be stored, or is the base's."""

    step: Step
    block: BlockId
    encoded: EncodedBlock | None


Made = TypeVar("Made")


def over_units(
    work: Work, storage: Storage, meter: Meter, make: Callable[[Step, Unit], Made]
) -> list[Made]:
    """What `make` makes of every step's unit, in order.

    If a record turns out damaged or gone, all of it is done again from whatever other copies and
    encodings the store has. Raises Corruption, MissingObject when there are none.
    """
    try:
        return _over(work, FetchedBlocks(work, storage.store, meter), make)
    except (Corruption, FileNotFoundError):
        return _over(work, RepairedBlocks(work, storage, meter), make)


def _over(work: Work, source: BlockSource, make: Callable[[Step, Unit], Made]) -> list[Made]:
    results = []
    for group in work.groups:
        source.fetch(group)
        for step in group.steps:
            results.append(make(step, _unit(step, source)))
            source.done(step)
    return results


def _unit(step: Step, source: BlockSource) -> Unit:
    """A step with its bytes in hand."""
    task = step.task
    base = None
    if step.base is not None:
        assert task.base is not None
        base = Full(joined(source, step.base), task.base)
    return Unit(
        step.start,
        step.length,
        base,
        tuple(_term(step, place, one, source) for place, one in enumerate(step.inputs)),
        task.scalars,
        task.dtype,
        task.seed,
        task.tensor_key,
        task.row_length,
    )


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
            work, self.storage, self.meter, lambda step, unit: self._make(work, step, unit)
        )

    def _make(self, work: Work, step: Step, unit: Unit) -> Result:
        task, base = step.task, unit.base
        out = np.empty(step.output_bytes, np.uint8).data
        merge(find(task.method), unit, out, device=self.device)
        identity = block_id(out)
        under = None
        if base is not None and step.base is not None and len(step.base.pieces) == 1:
            piece = step.base.pieces[0]
            if identity == piece.block:
                return Result(step, identity, None)
            if piece.whole and task.base == task.dtype and not isinstance(base.data, np.ndarray):
                under = BaseBlock(piece.block, base.data, _links(work, piece.block))
        if not work.encode:
            return Result(step, identity, None)
        return Result(step, identity, self.encoder.encode(identity, out, task.dtype, under))


def _links(work: Work, block: BlockId) -> int:
    """How many bases lie under a block as it is stored."""
    links = 0
    base = work.encodings[block].base
    while base is not None:
        links += 1
        base = work.encodings[base].base
    return links


def _term(step: Step, place: int, one: Input, source: BlockSource) -> Term:
    if isinstance(one, Weights):
        dtype = step.task.experts[place]
        assert dtype is not None
        delta = step.task.kinds[place] is TermKind.DELTA
        data = joined(source, one)
        return Delta(data, dtype) if delta else Full(data, dtype)
    if isinstance(one, Estimate):
        dtype = step.task.experts[place]
        assert dtype is not None
        return Coarse(source.trits(one, dtype, step.length), one.magnitude)
    return SAME
