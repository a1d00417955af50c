"""Steps into units of work: where every record is, and which are fetched together.

Only the coordinator runs this: it asks the index, once per batch. Which records a step reads is
decided by planner.reads, for planner and engine alike. Records are shared by the steps of one work
and read once; neighbouring steps are put together until about BATCH_BYTES would be read or
OUTPUT_BYTES made, which is what bounds the memory of a worker.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mergepipe.engine.work import Estimate, Group, Input, Permit, Step, Weights, Work
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.merging import Depth
from mergepipe.packs.encodings import Encoding, Place
from mergepipe.packs.index import Location
from mergepipe.packs.storage import Storage
from mergepipe.planner.reads import Options, StepReads, coarse_read, step_reads, stored_encodings

BATCH_BYTES = 16 << 20
OUTPUT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Batcher:
    """Makes the work of one plan.

    derive  whether a coarse reading may come from exact bytes where a block has no coarse layer
            (reads more than the plan says; a replay elsewhere needs it, a merge refuses)
    encode  whether results are to be stored
    """

    storage: Storage
    plan: ObjectId
    derive: bool = False
    encode: bool = True

    def works(self, steps: Sequence[Step], *, streamed: bool) -> Iterator[Work]:
        """The work of these steps, in order; `streamed`: one work, in several groups.

        Raises MissingObject naming a block that is in no pack, or has no coarse layer any more.
        """
        wanted = {block for step in steps for block in (*step.under, *_blocks(step))}
        options = stored_encodings(self.storage)(wanted)
        making = _Making()
        for step in steps:
            reads = self._reads(step, options)
            if making.full(step, reads):
                if streamed:
                    making.close_group()
                else:
                    yield making.work(self.plan, self.encode)
                    making = _Making()
            making.add(step, reads)
        if making.steps:
            yield making.work(self.plan, self.encode)

    def _reads(self, step: Step, options: Options) -> StepReads:
        blocks = [list(_input_blocks(one)) for one in step.inputs]
        depths = [self._depth(one, options) for one in step.inputs]
        return step_reads(options, step.under, blocks, depths)

    def _depth(self, one: Input, options: Options) -> Depth:
        if isinstance(one, Weights):
            return Depth.EXACT
        if isinstance(one, Estimate):
            derived = self.derive and coarse_read(one.block, one.base, options) is None
            return Depth.EXACT if derived else Depth.COARSE
        return Depth.OMITTED


@dataclass(slots=True)
class _Making:
    """A work in the making."""

    groups: list[Group] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    records: dict[Place, Location] = field(default_factory=dict)
    encodings: dict[BlockId, Encoding] = field(default_factory=dict)
    coarse: dict[tuple[BlockId, BlockId], Location] = field(default_factory=dict)
    under_base: set[BlockId] = field(default_factory=set)
    under_exact: set[BlockId] = field(default_factory=set)
    read_bytes: int = 0
    made_bytes: int = 0

    def full(self, step: Step, reads: StepReads) -> bool:
        """Whether the group has no room for a step."""
        more = sum(
            at.stored_bytes
            for records in (reads.base_records(), reads.expert_records())
            for place, at in records.items()
            if place not in self.records
        )
        return bool(self.steps) and (
            self.read_bytes + more > BATCH_BYTES
            or self.made_bytes + step.output_bytes > OUTPUT_BYTES
        )

    def add(self, step: Step, reads: StepReads) -> None:
        """Take a step, and what it needs that is not there yet."""
        chosen = dict(link for chain in reads.base for link in chain.links)
        self.under_base.update(chosen)
        needed = [] if step.base is None else list(step.under)
        for one, chains in zip(step.inputs, reads.experts, strict=True):
            for chain in chains:
                if chain.depth is Depth.COARSE:
                    assert isinstance(one, Estimate)
                    self._add_coarse(one, chain.records[0])
                else:
                    chosen.update(chain.links)
                    self.under_exact.update(block for block, _ in chain.links)
                    needed.append(chain.block)
        while needed:  # so that a base which nothing leans on here is not read
            block = needed.pop()
            if block in self.encodings:
                continue
            encoding = self.encodings[block] = chosen[block]
            for at in encoding.layers:
                self._add_record(at)
            if encoding.base is not None:
                needed.append(encoding.base)
        self.steps.append(step)
        self.made_bytes += step.output_bytes

    def close_group(self) -> None:
        """What is there so far is fetched, and made, before what follows."""
        records = tuple(sorted(self.records.values(), key=lambda at: (at.pack, at.offset)))
        self.groups.append(Group(tuple(self.steps), records))
        self.steps, self.records = [], {}
        self.read_bytes = self.made_bytes = 0

    def work(self, plan: ObjectId, encode: bool) -> Work:
        """The work."""
        self.close_group()
        return Work(
            plan,
            tuple(self.groups),
            self.encodings,
            self.coarse,
            Permit(
                frozenset(self.under_base),
                frozenset(self.under_exact - self.under_base),
                frozenset(block for block, _ in self.coarse),
            ),
            encode,
        )

    def _add_coarse(self, one: Estimate, layer: Location) -> None:
        if (one.block, one.base) not in self.coarse:
            self.coarse[one.block, one.base] = layer
            self._add_record(layer)

    def _add_record(self, at: Location) -> None:
        place = (at.pack, at.offset)
        if place not in self.records:
            self.records[place] = at
            self.read_bytes += at.stored_bytes


def _input_blocks(one: Input) -> Iterator[BlockId]:
    if isinstance(one, Weights):
        for piece in one.pieces:
            yield piece.block
    elif isinstance(one, Estimate):
        yield one.block


def _blocks(step: Step) -> Iterator[BlockId]:
    for one in step.inputs:
        yield from _input_blocks(one)
