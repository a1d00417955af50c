"""Blocks that lean on others which are about to go, stored again without them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import cheapest, stored_encodings
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress

_BATCH = 4096


class Reencoded(Struct, frozen=True):
    """How many blocks were stored again, and the bytes that they take."""

    blocks: int = 0
    stored_bytes: int = 0


def leaning_on(
    storage: Storage, blocks: Mapping[BlockId, DType], gone: Collection[BlockId]
) -> Iterator[tuple[BlockId, BlockId]]:
    """Those of `blocks` that cannot be read without one of `gone`, each with the one it needs."""
    remaining = iter(blocks)
    while batch := list(islice(remaining, _BATCH)):
        options = stored_encodings(storage, batch)
        free = {
            block: [way for way in ways if way.base not in gone]
            for block, ways in options.items()
            if block not in gone
        }
        best = cheapest(batch, free)
        for block in batch:
            if block in best or not options.get(block):
                continue
            at, seen = block, {block}
            while at not in gone:
                below = next((way.base for way in options[at] if way.base is not None), None)
                if below is None or below in seen:
                    break
                seen.add(below)
                at = below
            yield block, at


def reencode(
    reader: BlockReader,
    leaning: Sequence[tuple[BlockId, BlockId]],
    dtypes: Mapping[BlockId, DType],
    transaction: Transaction,
    *,
    effort: str,
    progress: Progress = SILENT,
) -> Reencoded:
    """Store blocks without what they lean on (`leaning_on` gives pairs of both).

    Of those that lean on one block, the first is stored alone and the others lean on it: siblings
    are nearly as like each other as what they all came from.
    """
    progress.start("store again", len(leaning))
    leaders: dict[BlockId, BlockId] = {}
    before = transaction.stored_bytes
    workspace = Workspace()
    for block, below in leaning:
        leader = leaders.setdefault(below, block)
        raw, *rest = reader.read([block] if leader == block else [block, leader])
        under = rest[0] if rest and len(rest[0]) == len(raw) else None
        dtype = dtypes[block]
        codec = choose(effort, dtype, samples_of(raw, under), workspace)
        base = (leader, under) if under is not None and codec.needs_base else None
        transaction.add_block(encode_block(block, raw, dtype, codec, base, workspace))
        progress.advance(1)
    return Reencoded(len(leaning), transaction.stored_bytes - before)
