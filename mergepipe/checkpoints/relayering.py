"""Blocks that no coarse layer ties to a base, stored again over it.

A model that was committed before anybody said what it was trained from leans on whatever was most
like it. A budget could only read its blocks whole; with a second encoding it reads them coarsely.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import Struct

from mergepipe.catalog.pairing import pair_snapshots
from mergepipe.codecs.chooser import TRYING, choose, samples_of
from mergepipe.codecs.protocol import Codec, MeasuringCodec
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.coarse_layers import coarse_links
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress

_BATCH = 256


class Layerless(Struct, frozen=True):
    """A block without a coarse layer over the base's block."""

    tensor: ObjectId
    dtype: DType
    block: BlockId
    base: BlockId
    raw_bytes: int


def layerless(
    snapshot: Snapshot, base: Snapshot, objects: ObjectStore, reader: BlockReader
) -> Iterator[Layerless]:
    """Blocks that differ from the base's and cannot be read coarsely over them, by the index."""
    remaining = _differing(snapshot, base, objects)
    while batch := list(islice(remaining, _BATCH)):
        options = reader.options(block.block for block in batch)
        yield from (
            block for block in batch if coarse_links(block.block, block.base, options) is None
        )


def store_layers(
    blocks: Sequence[Layerless],
    reader: BlockReader,
    transaction: Transaction,
    *,
    effort: str,
    max_chain: int,
    progress: Progress = SILENT,
) -> int:
    """Store blocks once more, over the base's; how many. The caller publishes.

    A tensor stays as it is where that takes no coarse layer: it has little to do with the base's.
    So does a block that the base's block leans on (who reads that has it in hand), one whose chain
    would be too long, and one that is damaged or missing, or whose base's block is.
    """
    progress.start("store again", sum(block.raw_bytes for block in blocks))
    effort = effort if effort in TRYING else "auto"  # who asks for layers wants them
    workspace = Workspace()
    codecs: dict[ObjectId, Codec] = {}
    layered = 0
    for block in blocks:
        progress.advance(block.raw_bytes)
        codec = codecs.get(block.tensor)
        if codec is not None and not isinstance(codec, MeasuringCodec):
            continue
        try:
            chain = reader.chain(block.base)
            if block.block in chain or len(chain) > max_chain:
                continue
            raw, under = reader.read([block.block, block.base])
        except Corruption:
            continue  # mp fsck tells, and mends it
        if codec is None:
            samples = samples_of(raw, under)
            codec = codecs[block.tensor] = choose(effort, block.dtype, samples, workspace)
        if isinstance(codec, MeasuringCodec):
            encoded = encode_block(
                block.block, raw, block.dtype, codec, (block.base, under), workspace
            )
            if len(encoded.records) > 1 and transaction.add_block(encoded):
                layered += 1
    return layered


def _differing(snapshot: Snapshot, base: Snapshot, objects: ObjectStore) -> Iterator[Layerless]:
    for identity, (pair, tensor) in pair_snapshots(snapshot, base, objects).items():
        if not pair.has_profile():
            continue
        for index, block in enumerate(tensor.block_ids()):
            under = pair.base_block(index)
            if under is not None and under != block:
                begin, end = pair.span(index)
                yield Layerless(identity, pair.dtype, block, under, end - begin)
