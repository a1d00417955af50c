"""Which records say how a block differs coarsely from another: one layer 0, or a chain of them.

A layer 0 over the block is read alone. One that follows another (`Encoding.follows`) is read with
that of the version before, down to the first, which lies over the block. The index knows what a
record leans on, and not over which block a chain of layers lies: only where all chains below end
over one block is it that one. (Payloads name it, and a reader compares.)
"""

from mergepipe.ids import BlockId
from mergepipe.packs.choice import DEEPEST_CHAIN, Options
from mergepipe.packs.records import Encoding

Links = tuple[tuple[BlockId, Encoding], ...]


def coarse_links(block: BlockId, base: BlockId, options: Options) -> Links | None:
    """The encodings whose layers 0 make up a block's coarse layer over `base`, its own first.

    The fewest bytes in all, then the fewest links. None if it has no such layer.
    """
    ways = options.get(block, ())
    if len(ways) == 1 and not ways[0].follows:  # nearly always
        only = ways[0]
        return ((block, only),) if only.base == base and len(only.layers) > 1 else None
    return _Search(options).links(block, base, DEEPEST_CHAIN)


def coarse_bytes(links: Links) -> int:
    """What reading a chain's layers 0 costs."""
    return sum(encoding.layers[0].stored_bytes for _, encoding in links)


def anchors(block: BlockId, options: Options) -> frozenset[BlockId]:
    """The blocks that a block's coarse layers lie over, by all of its encodings."""
    return _Search(options).anchors(block, DEEPEST_CHAIN)


class _Search:
    """Each block is looked at once a depth, however many ways lead to it: they may be hostile."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._anchors: dict[tuple[BlockId, int], frozenset[BlockId]] = {}
        self._links: dict[tuple[BlockId, int], Links | None] = {}

    def links(self, block: BlockId, base: BlockId, most: int) -> Links | None:
        """`coarse_links` of at most so many links below the block; `base`: always the same."""
        if (block, most) not in self._links:
            self._links[block, most] = self._best(block, base, most)
        return self._links[block, most]

    def _best(self, block: BlockId, base: BlockId, most: int) -> Links | None:
        best: tuple[tuple[int, int, int, int], Links] | None = None
        for way in self._options.get(block, ()):
            links: Links | None = None
            under = way.base
            if way.follows:
                if most and under is not None and self.anchors(under, most - 1) == {base}:
                    below = self.links(under, base, most - 1)
                    links = None if below is None else ((block, way), *below)
            elif under == base and len(way.layers) > 1:
                links = ((block, way),)
            if links is not None:
                header = way.header
                rank = (coarse_bytes(links), len(links), header.codec, header.version)
                if best is None or rank < best[0]:
                    best = rank, links
        return None if best is None else best[1]

    def anchors(self, block: BlockId, most: int) -> frozenset[BlockId]:
        """`anchors`, by at most so many links below the block."""
        known = self._anchors.get((block, most))
        if known is not None:
            return known
        bases: set[BlockId] = set()
        for way in self._options.get(block, ()):
            if way.base is None or len(way.layers) < 2:
                continue
            if not way.follows:
                bases.add(way.base)
            elif most:
                bases |= self.anchors(way.base, most - 1)
        self._anchors[block, most] = frozenset(bases)
        return self._anchors[block, most]
