"""Embeddings laid anew: the rows of stored tensors in another order, with rows of other models.

A merge across vocabularies brings every model's embeddings into the rows of one vocabulary first.
What comes out are stored tensors like any other. Blocks that come out as blocks that are stored
are taken over by id, unread; the others are made a few at a time and coded against the new base's.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from mergepipe.checkpoints.derived import Reads, Storing
from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.protocol import Buffer, Codec
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import byte_length
from mergepipe.errors import MergeInputError, MissingObject
from mergepipe.ids import BlockId, ObjectId, block_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import spans
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectSource
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block
from mergepipe.packs.sink import Sink
from mergepipe.parallel import ordered_map
from mergepipe.vocabularies.gathering import ARITHMETIC, Gatherer, StoredRows
from mergepipe.vocabularies.row_maps import RowMap, own_rows


class LaidOut(Struct, frozen=True):
    """What came of one tensor name.

    tensors     by model; None where no new rows were asked for
    read_bytes  from storage, as stored, the bases of delta-coded blocks included
    new_blocks  that were not in the store
    """

    tensors: tuple[ObjectId | None, ...]
    read_bytes: int
    new_blocks: int


def lay_out(
    name: str,
    maps: Sequence[RowMap | None],
    tensors: Sequence[ObjectId | None],
    base: int | None,
    *,
    objects: ObjectSource,
    reader: BlockReader,
    sink: Sink,
    storing: Storing,
) -> LaidOut:
    """Lay out the tensor `name` of several models together.

    maps     for each model its new rows; None: the model only gives rows to others
    tensors  for each model its stored tensor (its embeddings, where a tied head is left out)
    base     the model whose new blocks the others' are coded against

    A model whose tensor stays as it is keeps it, unread. Raises MergeInputError where a map names
    a model without the tensor, a row that it lacks, rows of another width, or arithmetic in a
    dtype that has none; nothing was read then.
    """
    sources = [
        None if identity is None else StoredRows.of(identity, objects.tensor(identity))
        for identity in tensors
    ]
    makings: dict[int, _Making] = {}
    reads = Reads(reader)
    for number, map_ in enumerate(maps):
        if map_ is not None:
            tensor = _checked(name, number, map_, sources)
            makings[number] = _Making(
                tensor,
                map_,
                map_ == own_rows(number, tensor.rows),
                Gatherer(map_, sources, tensor, reads),
                storing,
            )
    below = None if base is None else makings.get(base)
    with ThreadPoolExecutor(storing.threads, thread_name_prefix="embeddings") as pool:
        leaning = [
            making
            for making in makings.values()
            if below is not None and making is not below and making.lies_upon(below)
        ]
        if below is not None:
            _make(below, leaning, pool, sink)
        for making in makings.values():
            if making is not below and making not in leaning:
                _make(making, [], pool, sink)
    laid_out = [
        None if number not in makings else makings[number].finish(sink)
        for number in range(len(maps))
    ]
    return LaidOut(
        tuple(laid_out), reads.read_bytes, sum(making.new_blocks for making in makings.values())
    )


def _checked(
    name: str, number: int, map_: RowMap, sources: Sequence[StoredRows | None]
) -> StoredRows:
    """The model's own tensor, once nothing stands against laying it out."""
    of_model = sources[number]
    if of_model is None:
        raise MergeInputError(f"a model has no tensor {quoted(name)} to lay out anew")
    highest = map_.highest_rows()
    for model in sorted({number, *highest}):
        other = sources[model]
        if other is None:
            raise MergeInputError(f"rows of {quoted(name)} shall come from a model without it")
        if highest.get(model, -1) >= other.rows:
            raise MergeInputError(
                f"tensor {quoted(name)} has {other.rows} rows; token {highest[model]} has none"
            )
        shapes = [list(source.tensor.shape[1:]) for source in (of_model, other)]
        if shapes[0] != shapes[1]:
            raise MergeInputError(
                f"tensor {quoted(name)} has rows of shape {shapes[0]} in one model, "
                f"{shapes[1]} in another",
                "merge models of one hidden size",
            )
        computed = map_.means or map_.padding or of_model.dtype != other.dtype
        if computed and not {of_model.dtype.name, other.dtype.name} <= ARITHMETIC:
            raise MergeInputError(
                f"tensor {quoted(name)} is {of_model.dtype} and {other.dtype}: "
                "no means of such rows",
                "convert the models to bfloat16 first",
            )
    return of_model


class _Block(Struct):
    """A block of the output; `raw` is None where it is taken over from the store.

    fresh  it was encoded here, leaning on nothing
    """

    identity: BlockId
    raw: Buffer | None = None
    fresh: bool = False


class _Making:
    """One model's new tensor: where its blocks come from, and the ids of those that are made."""

    def __init__(
        self, own: StoredRows, map_: RowMap, kept: bool, gatherer: Gatherer, storing: Storing
    ) -> None:
        self.own = own
        self.map = map_
        self.kept = kept
        self.gatherer = gatherer
        self.storing = storing
        self.shape = (map_.count, *own.tensor.shape[1:])
        self.new_blocks = 0
        self._ids: list[BlockId] = []
        self._codecs: dict[bool, Codec] = {}
        self._workspace = Workspace()
        self._padding: bytes | None = None

    @property
    def block_bytes(self) -> int:
        """Length of a block: as in the model's own tensor."""
        return self.own.tensor.block_bytes

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Begin and end of each block, in bytes."""
        return list(spans(byte_length(self.own.dtype, self.shape), self.block_bytes))

    def lies_upon(self, base: "_Making") -> bool:
        """Whether each block has one of the base below it, of the same rows."""
        ours, theirs = self.own, base.own
        return (
            self.shape == base.shape
            and ours.dtype == theirs.dtype
            and self.block_bytes == base.block_bytes
        )

    def make(self, grid: Sequence[tuple[int, int]]) -> list[_Block]:
        """Neighbouring blocks, given by their spans."""
        stored = [self._stored(begin, end) for begin, end in grid]
        blocks: list[_Block] = []
        at = 0
        while at < len(grid):
            known = stored[at]
            if known is not None:
                blocks.append(_Block(known))
                at += 1
                continue
            stop = next((n for n in range(at, len(grid)) if stored[n] is not None), len(grid))
            start = grid[at][0]
            raw = self._raw(start, grid[stop - 1][1])
            pieces = [raw[begin - start : end - start] for begin, end in grid[at:stop]]
            blocks += [_Block(block_id(piece), piece) for piece in pieces]
            at = stop
        return blocks

    def take(self, block: _Block, encoded: EncodedBlock | None, sink: Sink) -> None:
        """Note the next block of the tensor, and store it if it is new."""
        self._ids.append(block.identity)
        if encoded is not None and not sink.has_block(block.identity):
            self.new_blocks += sink.add_block(encoded)

    def encode(self, block: _Block, base: tuple[BlockId, Buffer] | None) -> EncodedBlock:
        """A block with its bytes, as its tensor is coded."""
        assert block.raw is not None
        codec = self.codec(block.raw, None if base is None else base[1])
        leaning = base if codec.needs_base else None
        return encode_block(
            block.identity, block.raw, self.own.dtype, codec, leaning, self._workspace
        )

    def codec(self, raw: Buffer, base: Buffer | None) -> Codec:
        """What the tensor is coded in, chosen on the first block that asks."""
        chosen = self._codecs.get(base is not None)
        if chosen is None:
            chosen = choose(
                self.storing.codec, self.own.dtype, samples_of(raw, base), self._workspace
            )
            self._codecs[base is not None] = chosen
        return chosen

    def finish(self, sink: Sink) -> ObjectId:
        """The tensor, once all its blocks were taken."""
        if self.kept:
            return self.own.identity
        own = self.own.tensor
        return sink.add_object(
            encode(Tensor(own.dtype, self.shape, own.block_bytes, b"".join(self._ids)))
        )

    def _stored(self, begin: int, end: int) -> BlockId | None:
        """The stored block that is bytes `begin` to `end` of the output, if there is one."""
        width = self.own.row_bytes
        if not width or begin % width or end % width or end > len(self.map.models) * width:
            return None
        first, last = begin // width, end // width
        model, row = self.map.models[first], self.map.rows[first]
        source = self.gatherer.sources[model] if model >= 0 else None
        if source is None or source.dtype != self.own.dtype:
            return None
        per = source.rows_per_block
        if per is None or row % per or min(per, source.rows - row) != last - first:
            return None
        return source.blocks[row // per] if self.map.is_run(first, last) else None

    def _raw(self, begin: int, end: int) -> memoryview:
        """Bytes `begin` to `end` of the output. Blocks that cut rows may begin inside one."""
        import numpy as np

        width = self.own.row_bytes
        first, last = begin // width, -(-end // width)
        tokens = len(self.map.models)
        rows = [self.gatherer.rows(first, min(last, tokens))] if first < tokens else []
        if last > tokens:
            if self._padding is None:
                self._padding = self.gatherer.mean_row().tobytes()
            padding = np.frombuffer(self._padding, np.uint8)
            rows.append(np.tile(padding, (last - max(first, tokens), 1)))
        raw = memoryview(np.concatenate(rows).reshape(-1).data)
        return raw[begin - first * width : end - first * width]


def _make(below: _Making, leaning: Sequence[_Making], pool: ThreadPoolExecutor, sink: Sink) -> None:
    """Make and store a tensor, and those that lie upon it, some blocks of each at a time."""
    grid = below.blocks
    at_once = max(1, below.storing.piece_bytes // below.block_bytes)
    if below.kept and not leaning:
        return
    for first in range(0, len(grid), at_once):
        span = grid[first : first + at_once]
        bases = (
            [_Block(identity) for identity in below.own.blocks[first : first + at_once]]
            if below.kept
            else below.make(span)
        )
        if not below.kept:
            _store(below, bases, [None] * len(bases), pool, sink)
        for making in leaning:
            if not making.kept:
                _store(making, making.make(span), bases, pool, sink)


def _store(
    making: _Making,
    blocks: Sequence[_Block],
    bases: Sequence[_Block | None],
    pool: ThreadPoolExecutor,
    sink: Sink,
) -> None:
    """Encode those of neighbouring blocks that are new, and put them all into the tensor."""

    def work(place: int) -> EncodedBlock | None:
        block, base = blocks[place], bases[place]
        if block.raw is None or known[place]:
            return None
        return making.encode(block, None if base is None else _leaning(making, block, base))

    known = [block.raw is None or sink.has_block(block.identity) for block in blocks]
    fresh = [place for place, have in enumerate(known) if not have]
    if fresh:
        first = work(fresh[0])  # chooses the codec, whichever thread comes first
        rest = ordered_map(pool, work, fresh[1:], window=2 * making.storing.threads + 2)
        encoded = dict(zip(fresh, (first, *rest), strict=True))
    else:
        encoded = {}
    for place, block in enumerate(blocks):
        block.fresh = place in encoded and bases[place] is None
        making.take(block, encoded.get(place), sink)


def _leaning(making: _Making, block: _Block, base: _Block) -> tuple[BlockId, Buffer] | None:
    """The block to lean on: the base's new one, or where that is stored, what it may lean on."""
    storing, reads = making.storing, making.gatherer.reads
    if base.identity == block.identity or storing.codec == "raw" or storing.max_chain < 2:
        return None
    if base.fresh and base.raw is not None:
        return base.identity, base.raw
    try:
        under = reads.ancestor(base.identity, storing.max_chain)
    except MissingObject:  # it came into this transaction before; nobody can read it yet
        return None
    return None if under == block.identity else (under, reads.read([under])[0])
