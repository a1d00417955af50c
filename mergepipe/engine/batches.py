"""Steps into units of work: where every record is, and which are fetched together.

Only the coordinator runs this: it asks the index, once per batch. Which records a step reads is
decided by plans.reads, for planner and engine alike. Records are shared by the steps of one work
and read once; neighbouring steps are put together until about BATCH_BYTES would be read or
OUTPUT_BYTES made, which is what bounds the memory of a worker.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from mergepipe.engine.factors import FactorReader
from mergepipe.engine.work import Adapted, Estimate, Factor, Group, Permit, Step, Weights, Work
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.depths import Depth
from mergepipe.packs.choice import Options, stored_encodings
from mergepipe.packs.records import Encoding, Location, Place
from mergepipe.packs.storage import Storage
from mergepipe.plans.reads import (
    StepReads,
    Wanted,
    coarse_read,
    step_reads,
)

BATCH_BYTES = 16 << 20
OUTPUT_BYTES = 4 << 20


class Batcher(Struct, frozen=True):
    """Makes the work of one plan.

    factors where low-rank factors come from
    derive  whether a coarse reading may come from exact bytes where a block has no coarse layer
            (reads more than the plan says; a replay elsewhere needs it, a merge refuses)
    encode  whether results are to be stored
    """

    storage: Storage
    plan: ObjectId
    factors: FactorReader
    derive: bool = False
    encode: bool = True

    def works(self, steps: Sequence[Step], together: int = 1) -> Iterator[Work]:
        """The work of these steps, in order.

        together: so many blocks of a tensor belong in one work, if need be in several groups.

        Raises MissingObject naming a block that is in no pack, or has no coarse layer any more.
        """
        wanted = {block for step in steps for block in (*step.under, *step.making.blocks())}
        options = stored_encodings(self.storage, wanted)
        factors = self.factors.of(steps)
        making = _Gathering()
        part: object = None
        for step in steps:
            reads = self._reads(step, options)
            before, part = part, (step.task.number, step.index // together)
            if making.full(step, reads):
                if part == before:
                    making.close_group()
                else:
                    yield making.work(self.plan, factors, self.encode)
                    making = _Gathering()
            making.add(step, reads)
        if making.steps:
            yield making.work(self.plan, factors, self.encode)

    def _reads(self, step: Step, options: Options) -> StepReads:
        return step_reads(options, step.under, list(self._wanted(step, options)))

    def _wanted(self, step: Step, options: Options) -> Iterator[Wanted]:
        """What a step reads of its inputs, one for each that `_read_terms` names."""
        for read_term in _read_terms(step):
            if isinstance(read_term, Weights):
                yield Wanted(tuple(piece.block for piece in read_term.pieces), Depth.EXACT)
            else:
                derived = (
                    self.derive and coarse_read(read_term.block, read_term.base, options) is None
                )
                depth = Depth.EXACT if derived else Depth.COARSE
                yield Wanted((read_term.block,), depth, read_term.base)


def _read_terms(step: Step) -> Iterator[Weights | Estimate]:
    """The inputs of a step that are read, those of lines under it included; no bases."""
    for making in step.making.inner():
        for one in making.inputs:
            whole = one.of if isinstance(one, Adapted) else one
            if isinstance(whole, Weights | Estimate):
                yield whole


class _Gathering(Struct):
    """A work in the making."""

    groups: list[Group] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    records: dict[Place, Location] = field(default_factory=dict)
    encodings: dict[BlockId, Encoding] = field(default_factory=dict)
    coarse: dict[tuple[BlockId, BlockId], tuple[Location, ...]] = field(default_factory=dict)
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
        needed = list(_used_bases(step))
        for read_term, chains in zip(_read_terms(step), reads.experts, strict=True):
            for chain in chains:
                if chain.depth is Depth.COARSE:
                    assert isinstance(read_term, Estimate)
                    self._add_coarse(read_term, chain.records)
                else:
                    chosen.update(chain.links)
                    self.under_exact.update(block for block, _ in chain.links)
                    needed.append(chain.block)
        while needed:  # so that a base which nothing leans on here is not read
            block = needed.pop()
            if block in self.encodings:
                continue
            encoding = self.encodings[block] = chosen[block]
            for at in encoding.exact:
                self._add_record(at)
            if encoding.base is not None:
                needed.append(encoding.base)
        self.steps.append(step)
        self.made_bytes += step.output_bytes

    def close_group(self) -> None:
        """What is there so far is fetched, and made, before what follows."""
        records = tuple(sorted(self.records.values(), key=lambda at: at.place))
        self.groups.append(Group(tuple(self.steps), records))
        self.steps, self.records = [], {}
        self.read_bytes = self.made_bytes = 0

    def work(self, plan: ObjectId, factors: Mapping[Factor, bytes], encode: bool) -> Work:
        """The work; `factors` has all that its steps need."""
        self.close_group()
        own = {
            factor: factors[factor]
            for group in self.groups
            for step in group.steps
            for product in step.making.products()
            for factor in (product.up, product.down)
        }
        return Work(
            plan=plan,
            groups=tuple(self.groups),
            encodings=self.encodings,
            coarse=self.coarse,
            permit=Permit(
                frozenset(self.under_base),
                frozenset(self.under_exact - self.under_base),
                frozenset(BlockId(at.id) for layers in self.coarse.values() for at in layers),
            ),
            factors=own,
            encode=encode,
        )

    def _add_coarse(self, one: Estimate, layers: tuple[Location, ...]) -> None:
        if (one.block, one.base) not in self.coarse:
            self.coarse[one.block, one.base] = layers
            for at in layers:
                self._add_record(at)

    def _add_record(self, at: Location) -> None:
        if at.place not in self.records:
            self.records[at.place] = at
            self.read_bytes += at.stored_bytes


def _used_bases(step: Step) -> Iterator[BlockId]:
    """The blocks of bases that the result depends on."""
    for making in step.making.inner():
        base = making.base.of if isinstance(making.base, Adapted) else making.base
        if isinstance(base, Weights):
            yield from (piece.block for piece in base.pieces)
