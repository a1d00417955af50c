"""Blocks that lean on others which are about to go, stored again without them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import Options, cheapest, stored_encodings
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress

_BATCH = 4096


class Reencoded(Struct, frozen=True):
    """How many blocks were stored again, and the bytes that they take."""

    blocks: int = 0
    stored_bytes: int = 0


class Leaning(Struct, frozen=True):
    """A block that cannot be read without one that goes.

    below     the one that it needs
    ancestor  what that leans on in turn, and stays; None if there is no such block
    """

    block: BlockId
    below: BlockId
    ancestor: BlockId | None


def leaning_on(
    storage: Storage, blocks: Mapping[BlockId, DType], gone: Collection[BlockId]
) -> Iterator[Leaning]:
    """Those of `blocks` that cannot be read without one of `gone`."""
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
            yield Leaning(block, at, _ancestor(at, gone, options, free))


def _ancestor(
    block: BlockId, gone: Collection[BlockId], options: Options, free: Options
) -> BlockId | None:
    """The nearest block below one that goes, itself staying, that can be read without any."""
    at: BlockId | None = block
    seen: set[BlockId] = set()
    while at is not None and at in gone and at not in seen:
        seen.add(at)
        at = next((way.base for way in options.get(at, ()) if way.base is not None), None)
    return at if at is not None and at in cheapest([at], free) else None


def reencode(
    reader: BlockReader,
    leaning: Sequence[Leaning],
    dtypes: Mapping[BlockId, DType],
    transaction: Transaction,
    *,
    effort: str,
    progress: Progress = SILENT,
) -> Reencoded:
    """Store blocks without what they lean on, as `leaning_on` has them.

    A version whose predecessor goes leans on what that leant on, and is read coarsely over it. Of
    blocks without such an ancestor that lean on one block, the first is stored alone and the others
    lean on it: siblings are nearly as like each other as what they all came from.
    """
    progress.start("store again", len(leaning))
    leaders: dict[BlockId, BlockId] = {}
    before = transaction.stored_bytes
    workspace = Workspace()
    for each in leaning:
        block = each.block
        leader = each.ancestor or leaders.setdefault(each.below, block)
        raw, *rest = reader.read([block] if leader == block else [block, leader])
        under = rest[0] if rest and len(rest[0]) == len(raw) else None
        dtype = dtypes[block]
        codec = choose(effort, dtype, samples_of(raw, under), workspace)
        base = (leader, under) if under is not None and codec.needs_base else None
        transaction.add_block(encode_block(block, raw, dtype, codec, base, workspace))
        progress.advance(1)
    return Reencoded(len(leaning), transaction.stored_bytes - before)
