"""The facts of stored blocks against their bases, as a job: whoever does it finds the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct, field

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.catalog.facts import BlockFacts, measure
from mergepipe.catalog.pairs import Pair
from mergepipe.codecs.workspace import Workspace
from mergepipe.executors.blocks import PlacedBlocks, ways_to
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import Outcome
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.records import Encoding

_BATCH_BLOCKS = 4

Measured: TypeAlias = BlockFacts | None
"""Facts of a block, None where it is its base's."""


class PairedBlock(Struct, frozen=True):
    """Block `index` of the tensor of a number, beside its base's; None: there is none."""

    number: int
    pair: Pair
    index: int
    block: BlockId

    @property
    def base(self) -> BlockId | None:
        """The base's block under it."""
        return self.pair.base_block(self.index)

    @property
    def length(self) -> int:
        """Its size in bytes."""
        begin, end = self.pair.span(self.index)
        return end - begin

    @property
    def read(self) -> tuple[BlockId, ...]:
        """The blocks that measuring it reads."""
        return () if self.base in (None, self.block) else (self.block, self.base)


class Batch(Struct, frozen=True):
    """A few blocks; `ways`: how to read them, empty where who has the index does it."""

    blocks: tuple[PairedBlock, ...]
    ways: Mapping[BlockId, Encoding] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Their size in bytes."""
        return sum(block.length for block in self.blocks)

    @property
    def read(self) -> list[BlockId]:
        """The blocks that measuring them reads."""
        return [block for one in self.blocks for block in one.read]


def batches(blocks: Iterable[PairedBlock], reader: BlockReader | None) -> Iterator[Batch]:
    """Blocks a few at a time; with a reader, they say where they are."""
    waiting: list[PairedBlock] = []

    def batch() -> Batch:
        batch = Batch(tuple(waiting))
        return batch if reader is None else Batch(batch.blocks, ways_to(reader, batch.read))

    for block in blocks:
        waiting.append(block)
        if len(waiting) == _BATCH_BLOCKS:
            yield batch()
            waiting.clear()
    if waiting:
        yield batch()


class Reading(Protocol):
    """Gives the raw bytes of what a batch reads, in order."""

    def __call__(self, batch: Batch, /) -> Sequence[memoryview]:
        """Raises Corruption, MissingObject, NeedsRepair."""
        ...


class FactsJob(Struct, frozen=True):
    """Measuring blocks against their bases."""

    def open(self, store: ByteStore, /) -> "FactsOf":
        """Measuring those of a store that has no index."""
        placed = PlacedBlocks(store)
        return FactsOf(lambda batch: placed.read(batch.read, batch.ways), placed)

    def names(self, batch: Batch, /) -> Sequence[str]:
        """The tensors that are measured."""
        return tuple(dict.fromkeys(block.pair.name for block in batch.blocks))


class FactsOf(Struct, frozen=True):
    """Measures, on any thread. `placed`: what counts the bytes that are read, if it is ours."""

    read: Reading
    placed: PlacedBlocks | None = None
    workspace: Workspace = field(default_factory=Workspace)

    def readings(self) -> Readings:
        """What was read so far; nothing where the reader itself is counted."""
        return NOTHING_READ if self.placed is None else self.placed.readings()

    def do(self, batch: Batch, /) -> Outcome:
        """The facts of every block; None for one that has no base, or is it."""
        raws = dict(zip(batch.read, self.read(batch), strict=True))
        facts: list[Measured] = []
        for block in batch.blocks:
            if not block.read:
                facts.append(None)
                continue
            assert block.base is not None
            positions = block.pair.samples(block.index)
            raw, base = raws[block.block], raws[block.base]
            facts.append(measure(raw, base, block.pair.dtype, positions, self.workspace))
        return Outcome(tuple(facts), made_bytes=batch.length)
