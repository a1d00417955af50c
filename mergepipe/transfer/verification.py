"""Every new block decoded and hashed, once: before it is believed to be what it is called.

Blocks lean on other blocks, so they form trees: what has no base, or one that the store holds, and
above it all that is stored as a difference. A worker takes a few MiB of blocks at the bottom, and
then what leans on them while they are at hand; so nothing is decoded twice, and memory is a few
MiB for each level of a chain.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct, field

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption
from mergepipe.grouping import grouped
from mergepipe.ids import BlockId, PackId, block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import choose
from mergepipe.packs.decoding import decode_block
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Encoding, Place
from mergepipe.packs.runs import record_in, runs
from mergepipe.packs.storage import Storage
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.progress import Progress

_BATCH = 4096
# Raw bytes that a worker decodes at a time, a block at least.
_PIECE_BYTES = 4 << 20
# What all workers together may hold; a chain of the largest blocks leaves room for fewer of them.
_MEMORY_BYTES = 512 << 20


class BadBlock(Exception):
    """A block is not what it claims to be; `packs` hold the records that say so."""

    def __init__(self, error: Corruption, packs: Collection[PackId]) -> None:
        self.error = error
        self.packs = frozenset(packs)


class Forest(Struct):
    """How new blocks are stored, and what leans on what.

    chosen   the encoding of each new block, and of new bases that only these need
    leaning  blocks to be looked at, by the block they lean on
    bottom   those without a base; held: bases that can be read already
    """

    chosen: dict[BlockId, Encoding] = field(default_factory=dict)
    leaning: dict[BlockId, list[BlockId]] = field(default_factory=dict)
    bottom: list[BlockId] = field(default_factory=list)
    held: list[BlockId] = field(default_factory=list)
    depth: int = 1
    largest: int = 0
    todo_bytes: int = 0

    @property
    def raw_bytes(self) -> int:
        """Length of all new blocks, decoded."""
        return sum(encoding.raw_length for encoding in self.chosen.values())


def plant(
    storage: Storage,
    expected: Mapping[BlockId, int],
    is_new: Callable[[Sequence[BlockId]], list[bool]],
    is_known: Callable[[Encoding], bool] = lambda encoding: False,
) -> Forest:
    """Find how blocks of the `expected` lengths are stored in `storage`, and in what order to look.

    `is_new` tells which of the bases the store does not hold whole, `is_known` which encodings need
    no second look. Raises MissingObject for a block without a complete encoding, BadBlock for one
    of another length than expected.
    """
    forest = Forest()
    remaining = iter(expected)
    while batch := [block for _, block in zip(range(_BATCH), remaining, strict=False)]:
        chosen = choose(storage, batch)
        bases = [block for block in chosen if block not in expected]
        new = dict(zip(bases, is_new(bases), strict=True))
        for block, encoding in chosen.items():
            if new.get(block, True):
                _check_length(block, encoding, chosen, expected.get(block))
                forest.chosen[block] = encoding
        for block in batch:
            depth, link = 1, chosen[block].base
            while link is not None:
                depth, link = depth + 1, chosen[link].base
            forest.depth = max(forest.depth, depth)
    _connect(forest, is_known)
    return forest


def _check_length(
    block: BlockId,
    encoding: Encoding,
    found: Mapping[BlockId, Encoding],
    expected: int | None,
) -> None:
    """Before anything is allocated: a declared length must be the one that is needed."""
    length = encoding.raw_length
    if expected is not None and length != expected:
        error = Corruption(f"block {block.hex()} has {length} bytes, its tensor {expected}")
        raise _bad(encoding, error)
    if encoding.base is not None and found[encoding.base].raw_length != length:
        raise _bad(encoding, Corruption(f"block {block.hex()} and its base differ in length"))


def _connect(forest: Forest, is_known: Callable[[Encoding], bool]) -> None:
    """Link blocks to their bases, each group in the order of its records."""
    todo = {block for block, encoding in forest.chosen.items() if not is_known(encoding)}

    def place(block: BlockId) -> Place:
        return forest.chosen[block].layers[0].place

    held: dict[BlockId, None] = {}
    for block in sorted(todo, key=place):
        encoding = forest.chosen[block]
        forest.largest = max(forest.largest, encoding.raw_length)
        if encoding.base is None:
            forest.bottom.append(block)
            continue
        forest.leaning.setdefault(encoding.base, []).append(block)
        if encoding.base not in todo:
            held[encoding.base] = None
    forest.held = list(held)
    forest.todo_bytes = sum(forest.chosen[block].raw_length for block in todo)


def verify(
    forest: Forest, store: ByteStore, reader: BlockReader, threads: int, progress: Progress
) -> None:
    """Decode every block of a forest and compare it with its id.

    `store` has the packs of its records, `reader` reads the bases that the store holds. Raises
    BadBlock for the first that is another one.
    """
    level_bytes = 2 * max(_PIECE_BYTES, forest.largest)
    affordable = _MEMORY_BYTES // (level_bytes * (forest.depth + 1))
    workers = max(1, min(threads, affordable))
    worker = _Worker(forest, store, reader)
    progress.start("verify", forest.todo_bytes)
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        for done in ordered_map(pool, worker.run, worker.pieces(), window=2 * workers + 2):
            progress.advance(done)


class _Worker:
    def __init__(self, forest: Forest, store: ByteStore, reader: BlockReader) -> None:
        self._forest = forest
        self._store = store
        self._reader = reader
        self._scratch = Scratch()
        self._workspace = Workspace()

    def pieces(self) -> Iterator[tuple[bool, list[BlockId]]]:
        """What to begin with: blocks at the bottom, or (True) bases that the store holds."""
        for blocks in self._cut(self._forest.bottom):
            yield False, blocks
        for blocks in self._cut(self._forest.held):
            yield True, blocks

    def run(self, piece: tuple[bool, list[BlockId]]) -> int:
        """Verify a piece and all that leans on it; returns how many raw bytes were new."""
        self._scratch.reset()
        held, blocks = piece
        if held:
            return self._above(dict(zip(blocks, self._reader.read(blocks), strict=True)))
        return self._verify(blocks, {})

    def _verify(self, blocks: Sequence[BlockId], bases: Mapping[BlockId, memoryview]) -> int:
        mark = self._scratch.mark()
        raws = {}
        payloads = self._payloads(blocks)
        for block in blocks:
            encoding = self._forest.chosen[block]
            layers = [payloads[place] for place in encoding.places]
            base = None if encoding.base is None else bases[encoding.base]
            raw = self._decode(block, encoding, layers, base)
            if block_id(raw) != block:
                error = Corruption(f"block {block.hex()} is not what its id says")
                raise _bad(encoding, error)
            raws[block] = raw
        done = sum(len(raw) for raw in raws.values()) + self._above(raws)
        self._scratch.rewind(mark)
        return done

    def _decode(
        self,
        block: BlockId,
        encoding: Encoding,
        layers: Sequence[memoryview],
        base: memoryview | None,
    ) -> memoryview:
        try:
            return decode_block(encoding.header, layers, base, self._scratch.take, self._workspace)
        except Corruption as error:
            raise _bad(encoding, error) from error

    def _above(self, raws: Mapping[BlockId, memoryview]) -> int:
        """Verify what leans on blocks that are at hand."""
        leaning = [block for base in raws for block in self._forest.leaning.get(base, ())]
        leaning.sort(key=self._place)
        return sum(self._verify(blocks, raws) for blocks in self._cut(leaning))

    def _place(self, block: BlockId) -> Place:
        return self._forest.chosen[block].layers[0].place

    def _cut(self, blocks: Iterable[BlockId]) -> Iterator[list[BlockId]]:
        """Pieces of a few MiB: the same length for blocks of the store, which lean-ons share."""
        return grouped(blocks, self._length, _PIECE_BYTES)

    def _length(self, block: BlockId) -> int:
        known = block if block in self._forest.chosen else self._forest.leaning[block][0]
        return self._forest.chosen[known].raw_length

    def _payloads(self, blocks: Sequence[BlockId]) -> dict[Place, memoryview]:
        """The payloads of all their records, read with few calls."""
        records = sorted(
            (at for block in blocks for at in self._forest.chosen[block].layers),
            key=lambda at: at.place,
        )
        payloads: dict[Place, memoryview] = {}
        for run in runs(records):
            start = run[0].offset
            data = self._scratch.take(run[-1].end - start)
            count = self._store.read_into(pack_key(run[0].pack), start, data)
            for at in run:
                payloads[at.place] = record_in(data[:count], at, start)[1]
        return payloads


def _bad(encoding: Encoding, error: Corruption) -> BadBlock:
    return BadBlock(error, {at.pack for at in encoding.layers})
