"""Measuring what no profile knows, before a plan is frozen: thresholds, norms, dot products.

The planner says which blocks to read and how deep (planner.resolution.Measure); reading, metering
and spreading over threads are those of a merge. Partial results are added in the tensor's order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.dtypes import F32
from mergepipe.engine.batches import Batcher
from mergepipe.engine.computing import Supply, over_units
from mergepipe.engine.estimates import columns_of
from mergepipe.engine.factors import FactorReader
from mergepipe.engine.laying import Laying
from mergepipe.engine.meter import Meter, metered
from mergepipe.engine.steps import MergedTensor
from mergepipe.engine.work import UNCHANGED, Step, Work
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import Outcome
from mergepipe.executors.workforce import Workforce
from mergepipe.ids import NO_ID, ObjectId
from mergepipe.methods import SAME, Full, Need, Scope, Unit
from mergepipe.methods import statistics as stats
from mergepipe.methods.statistics import Partial
from mergepipe.objects.merging import LinePlan, PlanProfile
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.plans.measured import Measured
from mergepipe.plans.trees import Tree
from mergepipe.plans.units import unit_blocks, widest

_LOOK_AHEAD = 32


class MeasureJob(Struct, frozen=True):
    """One pass of measuring: every need, with what earlier passes over the tensor told of it."""

    needs: tuple[tuple[Need, tuple[Partial, ...]], ...]

    def open(self, store: ByteStore, /) -> "Measurer":
        """Measuring in a store that has no index."""
        return Measurer(self, Supply(store, Meter()))

    def partials(self, unit: Unit) -> list[Partial]:
        """What one unit tells of every need."""
        return [stats.partial(need, unit, list(known)) for need, known in self.needs]

    def names(self, work: Work, /) -> Sequence[str]:
        """The tensor that is measured."""
        return work.tensors


class Measurer(Struct, frozen=True):
    """Measures, on any thread."""

    job: MeasureJob
    supply: Supply

    def readings(self) -> Readings:
        """What was read so far."""
        return self.supply.meter.readings()

    def do(self, work: Work, /) -> Outcome:
        """A list of partials, one for each need, for every step of the work."""

        def partials(step: Step, unit: Unit) -> list[Partial]:
            return self.job.partials(unit)

        return Outcome(over_units(work, self.supply, partials), made_bytes=work.output_bytes)


class Measuring(Struct, frozen=True):
    """Measures statistics of tensors of one store: what the planner calls `Measure`."""

    storage: Storage
    workforce: Workforce = field(default_factory=Workforce)

    def __call__(
        self,
        lines: Sequence[LinePlan],
        profiles: Sequence[PlanProfile],
        needs: Sequence[Need],
        seed: int,
        /,
    ) -> Measured:
        """The value of every need, and the bytes that reading for it took."""
        meter = Meter()
        metadata = metered(self.storage, meter)
        objects = ObjectStore(metadata)
        number = len(lines) - 1
        under = [lines[line] for line in Tree.of(number, lines).lines]
        columns = columns_of(under, profiles, objects)
        laid = Laying(lines, seed, objects, columns).lay(number)
        assert isinstance(laid, MergedTensor)
        scope = widest(Scope.ELEMENT, *(stats.of(need).scope for need in needs))
        unit = max(laid.unit, unit_blocks(scope, objects.tensor(lines[number].like)))
        tensor = replace(laid, unit=unit)
        factors = FactorReader(self.storage, meter)
        batcher = Batcher(metadata, ObjectId(NO_ID), factors, encode=False)
        known: dict[Need, list[Partial]] = {need: [] for need in needs}
        for passed in range(max((stats.of(need).passes for need in needs), default=0)):
            due = [need for need in needs if stats.of(need).passes > passed]
            totals = self._pass(tensor, batcher, meter, {need: known[need] for need in due})
            factors.forget()
            for need, total in totals.items():
                known[need].append(total)
        read = meter.readings()
        values = {need: stats.value(need, known[need]) for need in needs}
        return Measured(values, read.expert_bytes, read.base_bytes)

    def _pass(
        self,
        tensor: MergedTensor,
        batcher: Batcher,
        meter: Meter,
        known: dict[Need, list[Partial]],
    ) -> dict[Need, Partial]:
        """One pass over the tensor: the sum of every need's partials."""
        every = any(need.expert is None for need in known)
        about = range(len(tensor.inputs)) if every else {need.expert or 0 for need in known}
        deltas = any(stats.of(need).deltas for need in known)
        steps = [
            tensor.reading(index, about, deltas=deltas)
            for index in range(0, tensor.grid.blocks, tensor.unit)
        ]

        job = MeasureJob(tuple((need, tuple(partials)) for need, partials in known.items()))
        # A block in which nothing changed tells all it has to tell without being read.
        idle = [not every and all(one is UNCHANGED for one in step.making.inputs) for step in steps]
        works = _works(
            batcher,
            [step for step, still in zip(steps, idle, strict=True) if not still],
            tensor.together,
        )
        read = self._measured(job, works, meter)
        totals: dict[Need, Partial] = {}
        for step, still in zip(steps, idle, strict=True):
            found = job.partials(_still(step)) if still else next(read)
            for need, one in zip(known, found, strict=True):
                before = totals.get(need)
                totals[need] = one if before is None else stats.combine((before, one))
        assert next(read, None) is None  # and its threads are done
        return totals

    def _measured(
        self, job: MeasureJob, works: Iterator[Work], meter: Meter
    ) -> Iterator[list[Partial]]:
        """The partials of every step of some works, in order."""
        measured = self.workforce.answers(
            works,
            lambda work: work.output_bytes,
            job,
            Measurer(job, Supply(self.storage.store, Meter(), self.storage)),
            note=lambda result: meter.add(result.readings),
        )
        for _, partials in measured:
            yield from partials


def _works(batcher: Batcher, steps: list[Step], together: int) -> Iterator[Work]:
    ahead: list[Step] = []
    for step in steps:
        begins = ahead and step.index // together != ahead[-1].index // together
        if begins and len(ahead) >= _LOOK_AHEAD:
            yield from batcher.works(ahead, together)
            ahead = []
        ahead.append(step)
    if ahead:
        yield from batcher.works(ahead, together)


def _still(step: Step) -> Unit:
    """The unit of a step whose deltas are all zero; what its base holds is no matter."""
    task = step.task
    base = Full(np.zeros(step.length, np.float32), F32)
    same = (SAME,) * len(step.making.inputs)
    return Unit(
        step.start,
        step.length,
        base,
        same,
        task.scalars,
        task.dtype,
        task.seed,
        task.tensor_key,
        task.row_length,
        task.slab_length,
    )
