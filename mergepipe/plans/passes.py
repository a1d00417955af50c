"""How often what is read, over all passes that a line takes: of its merge, and for its statistics.

A line that is merged for its file is read once, with all lines under it. A line with statistics
that no profile knows is read in further passes before that, as if it were the root of a tree.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import LinePlan
from mergepipe.plans.costs import NOT_THERE, Bytes, Depths, TensorCosts
from mergepipe.plans.trees import Tree

Counts = npt.NDArray[np.int64]


class Reading(Struct, frozen=True):
    """Passes over one tree; arrays have an entry for each of its leaves.

    rows    which row of the tensor's depths a leaf has
    passes  at the planned depths; trims: of everything, before depths are chosen
    """

    costs: TensorCosts
    rows: Counts
    passes: Counts
    trims: Counts

    @property
    def full_bytes(self) -> Bytes:
        """What each leaf's reads take in the exact merge."""
        total: Bytes = self.costs.bytes_by_expert(self.costs.full) * (self.passes + self.trims)
        return total

    def planned_bytes(self, depths: Depths) -> Bytes:
        """What they take at the depths of a tensor's rows."""
        full = self.costs.bytes_by_expert(self.costs.full)
        total: Bytes = self.costs.bytes_by_expert(self.own(depths)) * self.passes
        total += full * self.trims
        return total

    def saved_bytes(self, depths: Depths) -> int:
        """What leaves share within steps, over all passes: it is read, and counts, once."""
        if not self.costs.shared:
            return 0
        return sum(
            self.costs.saved_bytes(np.where(times[:, None] > done, at, np.uint8(Depth.OMITTED)))
            for times, at in ((self.passes, self.own(depths)), (self.trims, self.costs.full))
            for done in range(int(times.max(initial=0)))
        )

    def base_bytes(self, depths: Depths, *, every_step: bool) -> int:
        """What the bases take, at most."""
        of_root = self.own(depths)
        idle = np.isin(of_root, (Depth.OMITTED, Depth.EQUAL)).all(axis=0) & (not every_step)
        times = int(self.passes.max(initial=0) + self.trims.max(initial=0))
        return (int(self.costs.base[~idle].sum()) + self.costs.base_factors) * times

    def own(self, depths: Depths) -> Depths:
        """The depths of its leaves; those of a tree of another grid are all read."""
        own: Depths = depths[self.rows]
        return own if own.shape == self.costs.equal.shape else self.costs.full

    def add_offer(self, coarse: Bytes, exact: Bytes) -> None:
        """Add what each depth takes, per row and block; a coarse one that is not there stays so."""
        if exact.shape[1] != self.costs.exact.shape[1]:
            return
        times = self.passes[:, None]
        coarse[self.rows] = np.where(
            (self.costs.coarse == NOT_THERE) | (coarse[self.rows] == NOT_THERE),
            NOT_THERE,
            coarse[self.rows] + self.costs.coarse * times,
        )
        exact[self.rows] += self.costs.exact * times


def leaf_passes(tree: Tree, lines: Sequence[LinePlan], passes: Sequence[int]) -> Counts:
    """Per leaf, the passes that its root's statistics take; given those of the root's inputs."""
    root = lines[tree.root]
    through = [
        (Tree.of(term.made, lines).lines, times)
        for term, times in zip(root.inputs, passes, strict=True)
        if term.made is not None
    ]
    if root.base is not None and root.base.made is not None:
        through.append((Tree.of(root.base.made, lines).lines, max(passes, default=0)))
    times_read = np.zeros(len(tree.leaves), np.int64)
    for row, leaf in enumerate(tree.leaves):
        if leaf.line == tree.root:
            times_read[row] = passes[leaf.place]
        for under, times in through:
            if leaf.line in under:
                times_read[row] = max(int(times_read[row]), times)
    return times_read
