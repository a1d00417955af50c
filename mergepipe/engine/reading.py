"""Blocks of one work in memory: fetched in few large reads, decoded once, let go of early."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mergepipe.bytestore.protocol import Buffer, ByteStore
from mergepipe.codecs.workspace import Workspace
from mergepipe.engine.estimates import trits_from_layers, trits_from_weights
from mergepipe.engine.meter import Meter, Source, metered
from mergepipe.engine.work import Estimate, Group, Step, Weights, Work
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.decoding import decode_block, memory_for
from mergepipe.packs.records import Location, Place
from mergepipe.packs.runs import extent_of, record_in, runs
from mergepipe.packs.storage import Storage


class BlockSource(Protocol):
    """Where the steps of one work get their blocks. Everything given is verified."""

    def fetch(self, group: Group) -> None:
        """Read what a group needs."""
        ...

    def raw(self, block: BlockId) -> Buffer:
        """A block's bytes."""
        ...

    def trits(self, estimate: Estimate, count: int) -> Buffer:
        """Packed trits of `count` weights."""
        ...

    def done(self, step: Step) -> None:
        """A step has been made: what only it needed can go."""
        ...


class FetchedBlocks:
    """Blocks by the encodings that the work names; every record is read once, by the meter."""

    def __init__(self, work: Work, store: ByteStore, meter: Meter, workspace: Workspace) -> None:
        self._work = work
        self._workspace = workspace
        self._store = store
        self._meter = meter
        self._payloads: dict[Place, memoryview] = {}
        # Another block's coarse layer may follow one of these: they stay, and are small.
        self._layers = {at.place for layers in work.coarse.values() for at in layers}
        self._raws: dict[BlockId, Buffer] = {}
        self._verified: set[BlockId] = set()
        self._uses: Counter[BlockId] = Counter()
        for step in work.steps:
            self._uses.update(self._needed(step))

    @staticmethod
    def ranges(work: Work) -> list[tuple[str, int, int]]:
        """What `fetch` asks the store for, group by group: key, offset, length."""
        return [extent_of(run) for group in work.groups for run in runs(group.records)]

    def fetch(self, group: Group) -> None:
        """Read the group's records: neighbours together, nothing between."""
        for at in group.records:
            if not at.is_plausible:
                raise Corruption(f"block {at.id.hex()}: a record of absurd length")
        neighbours = list(runs(group.records))
        self._meter.expect(self._store, neighbours, self._work.permit)
        for records in neighbours:
            span = memoryview(self._meter.read_records(self._store, records, self._work.permit))
            for at in records:
                self._payloads[at.place] = record_in(span, at, records[0].offset)[1]

    def raw(self, block: BlockId) -> Buffer:
        """A block's bytes, compared with its id. Raises Corruption, CodecError."""
        raw = self._decoded(block)
        if block not in self._verified:
            if block_id(raw) != block:
                raise Corruption(f"block {block.hex()} is damaged: its bytes hash differently")
            self._verified.add(block)
        return raw

    def trits(self, estimate: Estimate, count: int) -> Buffer:
        """Packed trits, compared with the profile's hash. Raises Corruption, CodecError."""
        layers = self._work.coarse.get((estimate.block, estimate.base))
        if layers is None:
            raw, base = self.raw(estimate.block), self.raw(estimate.base)
            return trits_from_weights(estimate, raw, base, estimate.dtype, self._workspace).data
        payloads = [self._payloads[at.place] for at in layers]
        return trits_from_layers(estimate, payloads, count, self._workspace).data

    def done(self, step: Step) -> None:
        """Forget blocks that no later step of the work needs."""
        for block in self._needed(step):
            self._uses[block] -= 1
            if not self._uses[block]:
                self._raws.pop(block, None)
                for at in self._records(block):
                    if at.place not in self._layers:
                        self._payloads.pop(at.place, None)

    def _decoded(self, block: BlockId) -> Buffer:
        found = self._raws.get(block)
        if found is not None:
            return found
        encoding = self._work.encodings[block]
        base = None if encoding.base is None else memoryview(self._decoded(encoding.base))
        layers = [self._payloads[at.place] for at in encoding.exact]
        raw = decode_block(encoding.header, layers, base, memory_for(None), self._workspace)
        self._raws[block] = raw
        return raw

    def _records(self, block: BlockId) -> Iterator[Location]:
        encoding = self._work.encodings.get(block)
        if encoding is not None:
            yield from encoding.exact

    def _needed(self, step: Step) -> Iterator[BlockId]:
        """Every block that a step makes use of, once each, the bases they lean on included."""
        seen: set[BlockId] = set()
        stack = list(step.making.blocks())
        while stack:
            block = stack.pop()
            if block in seen:
                continue
            seen.add(block)
            yield block
            encoding = self._work.encodings.get(block)
            if encoding is not None and encoding.base is not None:
                stack.append(encoding.base)


class RepairedBlocks:
    """Blocks by whatever intact copy or encoding the store has: slower, when the first one failed.

    What is read counts as expert bytes, or as base bytes where the block is one of the base's.
    """

    def __init__(self, work: Work, storage: Storage, meter: Meter, workspace: Workspace) -> None:
        self._workspace = workspace
        self._permit = work.permit
        self._readers = {
            source: BlockReader(metered(storage, meter, source))
            for source in (Source.BASE, Source.EXPERT)
        }
        self._raws: dict[BlockId, Buffer] = {}

    def fetch(self, group: Group) -> None:
        """Nothing ahead of need."""

    def raw(self, block: BlockId) -> Buffer:
        """A block's bytes. Raises MissingObject, Corruption: there is no intact copy."""
        if block not in self._raws:
            source = Source.BASE if block in self._permit.base else Source.EXPERT
            self._raws[block] = self._readers[source].read([block])[0]
        return self._raws[block]

    def trits(self, estimate: Estimate, count: int) -> Buffer:
        """Packed trits from the block's exact bytes."""
        raw, base = self.raw(estimate.block), self.raw(estimate.base)
        return trits_from_weights(estimate, raw, base, estimate.dtype, self._workspace).data

    def done(self, step: Step) -> None:
        """Keep nothing."""
        self._raws.clear()


def joined(source: BlockSource, weights: Weights) -> Buffer:
    """The bytes of an input's range: a view of its block, or a copy where there are several."""
    if len(weights.pieces) == 1:
        piece = weights.pieces[0]
        raw = source.raw(piece.block)
        return raw if piece.whole else memoryview(raw)[piece.begin : piece.end]
    out: npt.NDArray[Any] = np.empty(sum(p.end - p.begin for p in weights.pieces), np.uint8)
    at = 0
    for piece in weights.pieces:
        size = piece.end - piece.begin
        block = np.frombuffer(source.raw(piece.block), np.uint8)
        out[at : at + size] = block[piece.begin : piece.end]
        at += size
    return out.data
