"""Steps into units of work: where every record is, and which are fetched together.

Only the coordinator runs this: it asks the index, once per batch. Which records a step reads is
decided by plans.reads, for planner and engine alike. Records are shared by the steps of one work
and read once; neighbouring steps are put together until about BATCH_BYTES would be read or
OUTPUT_BYTES made, which is what bounds the memory of a worker.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from msgspec import Struct, field

from mergepipe.engine.factors import FactorReader
from mergepipe.engine.work import (
    Adapted,
    Estimate,
    Factor,
    Group,
    Permit,
    Product,
    Step,
    Weights,
    Work,
)
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
        needs = [_Needs.of(step) for step in steps]
        options = stored_encodings(self.storage, {block for one in needs for block in one.blocks()})
        factors = self.factors.of([one.step for one in needs if one.products])
        making = _Gathering()
        part: object = None
        for one in needs:
            step, reads = one.step, self._reads(one, options)
            before, part = part, (step.task.number, step.index // together)
            if making.full(step, reads):
                if part == before:
                    making.close_group()
                else:
                    yield making.work(self.plan, factors, self.encode)
                    making = _Gathering()
            making.add(one, reads)
        if making.steps:
            yield making.work(self.plan, factors, self.encode)

    def _reads(self, needs: "_Needs", options: Options) -> StepReads:
        wanted = [self._wanted(one, options) for one in needs.inputs]
        return step_reads(options, needs.step.under, wanted)

    def _wanted(self, one: Weights | Estimate, options: Options) -> Wanted:
        """What is read of an input."""
        if isinstance(one, Weights):
            return Wanted(tuple([piece.block for piece in one.pieces]), Depth.EXACT)
        derived = self.derive and coarse_read(one.block, one.base, options) is None
        return Wanted((one.block,), Depth.EXACT if derived else Depth.COARSE, one.base)


class _Needs(Struct, frozen=True):
    """What goes into a step, lines under it included; told apart once, as it is asked for often.

    inputs  that are read; no bases
    bases   blocks of bases that the result depends on
    """

    step: Step
    inputs: tuple[Weights | Estimate, ...]
    bases: tuple[BlockId, ...]
    products: tuple[Product, ...]

    @classmethod
    def of(cls, step: Step) -> Self:
        """Those of a step."""
        inputs: list[Weights | Estimate] = []
        bases: list[BlockId] = []
        products: list[Product] = []
        for making in step.making.inner():
            for place, one in enumerate((making.base, *making.inputs)):
                whole = one
                if isinstance(one, Adapted):
                    products.append(one.product)
                    whole = one.of
                if place and isinstance(whole, (Estimate, Weights)):
                    inputs.append(whole)
                elif isinstance(whole, Weights):
                    bases += [piece.block for piece in whole.pieces]
        return cls(step, tuple(inputs), tuple(bases), tuple(products))

    def blocks(self) -> Iterator[BlockId]:
        """Every block that is to be found, but for those that others lean on, and factors."""
        yield from self.step.under
        yield from self.bases
        for one in self.inputs:
            if isinstance(one, Weights):
                yield from [piece.block for piece in one.pieces]
            else:
                yield one.block


class _Gathering(Struct):
    """A work in the making."""

    groups: list[Group] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    records: dict[Place, Location] = field(default_factory=dict)
    encodings: dict[BlockId, Encoding] = field(default_factory=dict)
    coarse: dict[tuple[BlockId, BlockId], tuple[Location, ...]] = field(default_factory=dict)
    under_base: set[BlockId] = field(default_factory=set)
    under_exact: set[BlockId] = field(default_factory=set)
    read_bytes: int = 0
    made_bytes: int = 0

    def full(self, step: Step, reads: StepReads) -> bool:
        """Whether the group has no room for a step."""
        if not self.steps:
            return False
        if self.made_bytes + step.output_bytes > OUTPUT_BYTES:
            return True
        records = reads.records()
        more = sum([at.stored_bytes for place, at in records.items() if place not in self.records])
        return self.read_bytes + more > BATCH_BYTES

    def add(self, needs: _Needs, reads: StepReads) -> None:
        """Take a step, and what it needs that is not there yet."""
        chosen = dict(link for chain in reads.base for link in chain.links)
        self.under_base.update(chosen)
        needed = list(needs.bases)
        for one, chains in zip(needs.inputs, reads.experts, strict=True):
            for chain in chains:
                if chain.depth is Depth.COARSE:
                    assert isinstance(one, Estimate)
                    self._add_coarse(one, chain.records)
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
        self.steps.append(needs.step)
        self.products += needs.products
        self.made_bytes += needs.step.output_bytes

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
            for product in self.products
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
