"""Doing one unit of work: blocks in, merged and named blocks out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from mergepipe.bytestore.protocol import ByteStore, Expecting
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import F32, F64
from mergepipe.engine.encoding import BaseBlock, OutputEncoder
from mergepipe.engine.factors import product_values
from mergepipe.engine.meter import Meter
from mergepipe.engine.partial_sums import packed_sums
from mergepipe.engine.reading import BlockSource, FetchedBlocks, RepairedBlocks, joined
from mergepipe.engine.work import (
    Adapted,
    Computed,
    Estimate,
    Input,
    Making,
    Piece,
    Step,
    Summed,
    Weights,
    Work,
)
from mergepipe.errors import Corruption
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import NeedsRepair, Outcome
from mergepipe.ids import BlockId, block_id
from mergepipe.methods import SAME, Coarse, Delta, Full, Term, Unit, find, merge
from mergepipe.methods.terms import view_bytes
from mergepipe.objects.grid import spans
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.made_blocks import MadeBlocks
from mergepipe.packs.storage import Storage
from mergepipe.values import count_nonfinite, decode


class Supply(Struct, frozen=True):
    """Where the blocks of works are read.

    storage    with an index, by which damage is mended; without one, NeedsRepair is raised
    workspace  for decoding
    made       where what is made of them is kept as well as stored, for who wants it at once
    """

    store: ByteStore
    meter: Meter
    storage: Storage | None = None
    workspace: Workspace = field(default_factory=Workspace)
    made: MadeBlocks | None = None


class StepResult(Struct, frozen=True):
    """What a step made: its output blocks.

    nonfinite  how many of the values made are infinite or NaN
    taken_in   such values of inputs that had not been counted: by (line, place of the input), the
               base being place -1
    sums       that are to be kept: key, and the bytes
    """

    blocks: tuple[BlockId, ...]
    nonfinite: int = 0
    taken_in: Mapping[tuple[int, int], int] = field(default_factory=dict)
    sums: tuple[tuple[str, bytes], ...] = ()


Made = TypeVar("Made")


class Counts(Struct):
    """Counts values that are not finite in what one step after another takes in.

    Differences are what is left of weights and base: only whole weights are counted.
    """

    uncounted: frozenset[tuple[int, int]]
    noted: dict[tuple[int, int], int] = field(default_factory=dict)

    def begin(self) -> None:
        """Start with the next step."""
        self.noted = {}

    def note(self, line: int, base: Full | None, terms: Sequence[Term]) -> None:
        """Count what one line takes in; one that a step needs twice is made once."""
        if not self.uncounted:
            return
        for place, term in ((-1, base), *enumerate(terms)):
            if isinstance(term, Full | Delta) and (line, place) in self.uncounted:
                count = count_nonfinite(term.dtype, view_bytes(term.data).data)
                if count:
                    self.noted[line, place] = count


def over_units(
    work: Work,
    supply: Supply,
    make: Callable[[Step, Unit], Made],
    device: str = "cpu",
    counts: Counts | None = None,
) -> list[Made]:
    """What `make` makes of every step's unit, in order.

    If a record turns out damaged or gone, all of it is done again from whatever other copies and
    encodings the store has. Raises Corruption, MissingObject when there are none, NeedsRepair where
    it is not known what others there are.
    """
    # What is not finite is counted, and what a type cannot hold becomes infinite: no news of numpy.
    with np.errstate(all="ignore"):
        try:
            source: BlockSource = FetchedBlocks(work, supply.store, supply.meter, supply.workspace)
            return _over(work, source, make, device, counts)
        except (Corruption, FileNotFoundError) as error:
            if supply.storage is None:
                raise NeedsRepair(str(error)) from None
            source = RepairedBlocks(work, supply.storage, supply.meter, supply.workspace)
            return _over(work, source, make, device, counts)


def _over(
    work: Work,
    source: BlockSource,
    make: Callable[[Step, Unit], Made],
    device: str,
    counts: Counts | None,
) -> list[Made]:
    results = []
    for group in work.groups:
        source.fetch(group)
        for step in group.steps:
            if counts is not None:
                counts.begin()
            results.append(
                make(step, _Assembly(step, work, source, device, counts).unit(step.making))
            )
            source.done(step)
    return results


class _Assembly:
    """A step's bytes in hand: units, of its own line and of those under it."""

    def __init__(
        self, step: Step, work: Work, source: BlockSource, device: str, counts: Counts | None
    ) -> None:
        self._step = step
        self._work = work
        self._source = source
        self._device = device
        self._counts = counts
        self._made: dict[int, Full] = {}

    def unit(self, making: Making) -> Unit:
        """What makes the step's range of a line."""
        task = making.task
        base = None
        if making.base is not None:
            base_term = self._term(making.base)
            assert isinstance(base_term, Full)
            base = base_term
        terms = tuple(self._term(one) for one in making.inputs)
        if self._counts is not None:
            self._counts.note(task.number, base, terms)
        return Unit(
            self._step.start,
            self._step.length,
            base,
            terms,
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
            case Summed():
                return Delta(one.data, F32) if one.deltas else Full(one.data, F32)
            case Adapted():
                return self._adapted(one)
            case _:
                return SAME

    def _computed(self, making: Making) -> Full:
        """What another line makes of the same range, once for all that take it in."""
        values = self._made.get(making.task.number)
        if values is None:
            task = making.task
            out = np.empty(self._step.length * task.dtype.bits // 8, np.uint8).data
            merge(find(task.method), self.unit(making), out, device=self._device)
            values = self._made[task.number] = Full(out, task.dtype)
        return values

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


class MergeJob(Struct, frozen=True):
    """Merging, and encoding what came out. `device` is where the arithmetic runs: `cpu`, `cuda`...

    uncounted  inputs, as (line, place), of whose values nobody knows yet whether all are finite
    """

    encoder: OutputEncoder
    device: str = "cpu"
    uncounted: frozenset[tuple[int, int]] = frozenset()

    def open(self, store: ByteStore, /) -> "Worker":
        """Merging from a store that has no index."""
        return self.on(Supply(store, Meter()))

    def on(self, supply: Supply) -> "Worker":
        """Merging from a supply."""
        return Worker(supply, self.encoder, self.device, self.uncounted)

    def names(self, work: Work, /) -> Sequence[str]:
        """The tensors that a work makes blocks of."""
        return work.tensors


class Worker(Struct, frozen=True):
    """Does work, on any thread; as `MergeJob` says."""

    supply: Supply
    encoder: OutputEncoder
    device: str = "cpu"
    uncounted: frozenset[tuple[int, int]] = frozenset()

    def readings(self) -> Readings:
        """What was read so far."""
        return self.supply.meter.readings()

    def ahead(self, work: Work, /) -> None:
        """Tell a store that is far away what the work reads."""
        if isinstance(self.supply.store, Expecting):
            self.supply.store.expect(FetchedBlocks.ranges(work))

    def do(self, work: Work, /) -> Outcome:
        """A `StepResult` for each of the work's steps, in order. Raises as `over_units` does."""
        counts = Counts(self.uncounted)
        meter = Meter()
        try:
            results = over_units(
                work,
                replace(self.supply, meter=meter),
                lambda step, unit: self._make(work, step, unit, counts),
                self.device,
                counts,
            )
        finally:
            readings = meter.readings()
            self.supply.meter.add(readings)
        return Outcome(
            tuple(result for result, _ in results),
            [block for _, encoded in results for block in encoded],
            work.output_bytes,
            readings=readings,
        )

    def _make(
        self, work: Work, step: Step, unit: Unit, counts: Counts
    ) -> tuple[StepResult, list[EncodedBlock]]:
        out = np.empty(step.output_bytes, np.uint8).data
        merge(find(step.task.method), unit, out, device=self.device)
        pieces = step.making.base.pieces if isinstance(step.making.base, Weights) else ()
        found = []
        for number, (begin, end) in enumerate(spans(step.output_bytes, step.block_bytes)):
            piece = pieces[number] if len(pieces) == step.blocks else None
            found.append(self._named(work, step, unit, out[begin:end], begin, piece))
        result = StepResult(
            tuple(identity for identity, _ in found),
            count_nonfinite(step.task.dtype, out),
            counts.noted,
            tuple(packed_sums(step, unit)),
        )
        return result, [encoded for _, encoded in found if encoded is not None]

    def _named(
        self, work: Work, step: Step, unit: Unit, out: memoryview, begin: int, piece: Piece | None
    ) -> tuple[BlockId, EncodedBlock | None]:
        """One output block; `piece`: of the base that lies under it, if one does."""
        identity = block_id(out)
        if piece is not None and identity == piece.block:
            return identity, None
        if not work.encode:
            return identity, None
        if self.supply.made is not None:
            self.supply.made.keep(identity, out)
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
