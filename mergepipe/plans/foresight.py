"""Looking up the blocks of many trees at once, in the order of the index, and not tree by tree.

Ids are hashes: the blocks of one tensor lie all over the index. So what all trees will ask for is
asked together, sorted, which reads each page of the index once, and lets it be forgotten.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mergepipe.grouping import grouped
from mergepipe.ids import ID_BYTES, BlockId, ObjectId
from mergepipe.objects.merging import LinePlan
from mergepipe.objects.store import Tensors
from mergepipe.packs.choice import Options
from mergepipe.packs.id_arrays import ID_DTYPE, Ids, distinct, rows_of
from mergepipe.packs.only_ways import OnlyWays
from mergepipe.plans.reads import EncodingSource
from mergepipe.plans.trees import Tree, taken

# Of so many blocks the answers are held: some 80 bytes each.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Known:
    """A source that was asked about some blocks before."""

    source: EncodingSource
    ids: Ids
    ways: OnlyWays

    def encodings(self, blocks: Iterable[BlockId], /) -> Options:
        """Every encoding of blocks and of all blocks they may lean on."""
        return self.source.encodings(blocks)

    def only_ways(self, ids: Ids, /) -> OnlyWays:
        """Those of blocks that were asked about."""
        return self.ways.rows(rows_of(ids, self.ids))


def looked_up_together(
    trees: Sequence[Tree], lines: Sequence[LinePlan], tensors: Tensors, source: EncodingSource
) -> Iterator[EncodingSource]:
    """For each tree a source that knows its blocks; of some trees at a time."""
    sizes = {
        tree.root: sum(len(tensors[tensor].blocks) for tensor in _read(tree, lines)) // ID_BYTES
        for tree in trees
    }
    for group in grouped(trees, lambda tree: sizes[tree.root], _AT_ONCE):
        read = dict.fromkeys(tensor for tree in group for tensor in _read(tree, lines))
        raw = b"".join(tensors[tensor].blocks for tensor in read)
        ids = distinct(np.frombuffer(raw, ID_DTYPE))
        known = _Known(source, ids, source.only_ways(ids))
        yield from (known for _ in group)


def _read(tree: Tree, lines: Sequence[LinePlan]) -> dict[ObjectId, None]:
    """The stored tensors that a tree takes in, each once."""
    return {
        term.stored: None
        for number in tree.lines
        for term in taken(lines[number])
        if term.stored is not None
    }
