"""Streaming a plan: from its tensors to the ids of the output's, a few works at a time.

Memory, whatever the size of the model: threads x (BATCH_BYTES fetched, or one step's records if
they are more, + one decoded block per input + OUTPUT_BYTES made) + (threads + 2) x OUTPUT_BYTES of
results that wait to be written, with the encoded form of each. Only ids (32 bytes per block) are
kept longer.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from mergepipe.engine.batches import Batcher
from mergepipe.engine.computing import StepResult
from mergepipe.engine.estimates import columns_of
from mergepipe.engine.kept_segments import Kept, NothingKept
from mergepipe.engine.laying import Laying
from mergepipe.engine.memo import Memory
from mergepipe.engine.meter import Meter
from mergepipe.engine.partial_sums import PartialSums
from mergepipe.engine.steps import KeptTensor, Known, MergedTensor
from mergepipe.engine.work import Step, Work
from mergepipe.errors import MergeInputError
from mergepipe.executors.home import Coordinator
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import (
    SEGMENT_BYTES,
    Executor,
    Segment,
    SegmentResult,
    WorkerSpec,
    segmented,
)
from mergepipe.ids import BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Plan
from mergepipe.objects.records import Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.sink import PackSink
from mergepipe.progress import Progress

# Steps whose records are looked up at once: enough to make the look-up cheap, few enough that
# workers need not wait for the first.
_LOOK_AHEAD = 32


class Streamed(Struct, frozen=True):
    """What a plan's tensors became, in the plan's order, and how: counts are of blocks.

    computed: made here; remembered: a result known before; kept: the base's, not even looked at.
    nonfinite: values that are infinite or NaN, of those computed, by line of the plan; taken_in: of
    inputs that had not been counted before, by line and place. attempts: what work that was lost
    and done again had read. resumed: segments that a process had done which then died.
    """

    tensors: tuple[ObjectId, ...]
    computed: int
    remembered: int
    kept: int
    nonfinite: Mapping[int, int] = field(default_factory=dict)
    taken_in: Mapping[tuple[int, int], int] = field(default_factory=dict)
    attempts: tuple[Readings, ...] = ()
    resumed: int = 0


class _Output(Struct):
    """An output tensor being filled."""

    dtype: str
    shape: tuple[int, ...]
    block_bytes: int
    blocks: list[BlockId]


class _Tally(Struct):
    computed: int = 0
    remembered: int = 0
    kept: int = 0
    nonfinite: Counter[int] = field(default_factory=Counter)
    taken_in: Counter[tuple[int, int]] = field(default_factory=Counter)
    attempts: list[Readings] = field(default_factory=list)
    resumed: int = 0

    def add(self, step: Step, result: StepResult) -> None:
        """Take note of a result."""
        self.computed += len(result.blocks)
        if result.nonfinite:
            self.nonfinite[step.task.number] += result.nonfinite
        self.taken_in.update(result.taken_in)


class Streaming(Struct):
    """One run of one plan. Use once."""

    plan: Plan
    objects: ObjectStore
    batcher: Batcher
    executor: Executor
    spec: WorkerSpec
    home: Coordinator
    meter: Meter
    memo: Memory
    sink: PackSink
    progress: Progress
    sums: PartialSums | None = None
    segment_bytes: int = SEGMENT_BYTES
    kept: Kept = field(default_factory=NothingKept)
    _outputs: dict[int, _Output | ObjectId] = field(default_factory=dict)
    _tally: _Tally = field(default_factory=_Tally)
    _begun: dict[int, Segment] = field(default_factory=dict)
    _done: deque[SegmentResult] = field(default_factory=deque)

    def run(self) -> Streamed:
        """Make every tensor of the plan; blocks and tensor objects are in the sink then.

        Raises MergeInputError where plan and inputs do not fit, Corruption, MissingObject, NoSpace.
        """
        numbers = [place for place, line in enumerate(self.plan.lines) if line.file is not None]
        for result in self._results(numbers):
            segment = self._begun.pop(result.number)
            for work, values in zip(segment.items, result.values, strict=True):
                for step, made in zip(work.steps, values, strict=True):
                    self._take(step, made)
            self.sink.add_packs(result.packs)
            self.meter.add(result.readings)
            self._tally.attempts += result.attempts
        ids = tuple(self._finished(number) for number in numbers)
        tally = self._tally
        return Streamed(
            tensors=ids,
            computed=tally.computed,
            remembered=tally.remembered,
            kept=tally.kept,
            nonfinite=dict(tally.nonfinite),
            taken_in=dict(tally.taken_in),
            attempts=tuple(tally.attempts),
            resumed=tally.resumed,
        )

    def _results(self, numbers: Sequence[int]) -> Iterator[SegmentResult]:
        """The results of all segments in their order, whoever made them, and when."""
        for result in self.executor.results(self._segments(numbers), self.spec, self.home):
            while self._done and self._done[0].number < result.number:
                yield self._done.popleft()
            self.kept.keep(self._begun[result.number], result)
            yield result
        yield from self._done

    def _segments(self, numbers: Sequence[int]) -> Iterator[Segment]:
        for segment in segmented(
            self._works(numbers), lambda work: work.output_bytes, self.segment_bytes
        ):
            self._begun[segment.number] = segment
            done = self.kept.find(segment)
            if done is None:
                yield segment
                continue
            self._done.append(done)
            self._tally.resumed += 1
            self.home.advance(segment.made_bytes)

    def _take(self, step: Step, result: StepResult) -> None:
        self._put(step, result.blocks)
        if not (result.nonfinite or result.taken_in):
            # What is remembered is not looked at again, and must be beyond doubt.
            self.memo.remember(step, result.blocks)
        for key, stored in result.sums:
            assert self.sums is not None
            self.sums.put(key, stored)
        self._tally.add(step, result)

    def _works(self, numbers: Sequence[int]) -> Iterator[Work]:
        columns = columns_of(self.plan.lines, self.plan.profiles, self.objects)
        laying = Laying(self.plan.lines, self.plan.seed, self.objects, columns)
        waiting: list[Step] = []
        for number in numbers:
            tensor = laying.lay(number)
            if isinstance(tensor, KeptTensor):
                self._outputs[number] = tensor.tensor
                continue
            self._outputs[number] = _Output(
                tensor.task.dtype.name,
                tensor.shape,
                tensor.block_bytes,
                [BlockId(b"")] * tensor.grid.blocks,
            )
            if tensor.together > 1:
                yield from self._in_parts(number, tensor)
                continue
            for step in self._unknown(number, tensor):
                waiting.append(step)
                if len(waiting) >= _LOOK_AHEAD:
                    yield from self._batched(waiting)
                    waiting = []
        yield from self._batched(waiting)

    def _in_parts(self, number: int, tensor: MergedTensor) -> Iterator[Work]:
        """The work of a tensor of which some blocks belong together."""
        together = tensor.together
        waiting: list[Step] = []
        for step in self._unknown(number, tensor):
            begins = waiting and step.index // together != waiting[-1].index // together
            if begins and len(waiting) >= _LOOK_AHEAD:
                yield from self._batched(waiting, together)
                waiting = []
            waiting.append(step)
        yield from self._batched(waiting, together)

    def _unknown(self, number: int, tensor: MergedTensor) -> Iterator[Step]:
        """The tensor's steps; blocks that are the base's are put down at once."""
        output = self._outputs[number]
        assert isinstance(output, _Output)
        for step in tensor.steps():
            if isinstance(step, Known):
                output.blocks[step.index : step.index + len(step.blocks)] = step.blocks
                self._tally.kept += len(step.blocks)
            else:
                yield step

    def _batched(self, steps: Sequence[Step], together: int = 1) -> Iterator[Work]:
        """The work that is left of these steps once what was remembered is put down."""
        new: list[Step] = []
        for step, known in zip(steps, self.memo.find(steps), strict=True):
            if known is None:
                new.append(step if self.sums is None else self.sums.shortened(step))
            else:
                self._put(step, known)
                self._tally.remembered += len(known)
                self.progress.advance(step.output_bytes)
        return self.batcher.works(new, together) if new else iter(())

    def _put(self, step: Step, blocks: Sequence[BlockId]) -> None:
        output = self._outputs[step.task.number]
        assert isinstance(output, _Output)
        output.blocks[step.index : step.index + len(blocks)] = blocks

    def _finished(self, number: int) -> ObjectId:
        output = self._outputs.pop(number)
        if not isinstance(output, _Output):
            return output
        return self.sink.add_object(
            encode(Tensor(output.dtype, output.shape, output.block_bytes, b"".join(output.blocks)))
        )


def check_layout(plan: Plan, objects: ObjectStore) -> None:
    """Raise MergeInputError unless the plan makes every tensor of its layout, in their order."""
    snapshot = objects.load(plan.layout, Snapshot)
    entries = [(file.path, entry.name) for file, entry in snapshot.named_tensors()]
    if entries != [(one.file, one.name) for one in plan.made]:
        planned = {(one.file, one.name) for one in plan.made}
        missing = [name for path, name in entries if (path, name) not in planned]
        raise MergeInputError(
            "the plan does not name the tensors of its layout in their order"
            + (f": {quoted(missing[0])} is missing" if missing else ""),
            "make the plan again",
        )
