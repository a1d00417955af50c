"""What is kept of one block against its base block: the line it gets in a profile."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.residual import BlockStatistics, analyse
from mergepipe.codecs.trits import trits_at
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.ids import digest

_COUNTED_BITS = 16


class BlockFacts(Struct, frozen=True, eq=False):
    """Statistics of d = x - base over one block (docs/format-merge.md, profile).

    sizes, counts  distinct |d| as float32 bits, rising, and how often each occurs; None if the
                   dtype is not 16 bits wide
    signs          trits at the tensor's sample positions inside this block
    """

    energy: float
    changed: int
    largest: float
    threshold: float
    magnitude: float
    kept: int
    coarse: bytes
    sizes: npt.NDArray[np.uint32] | None
    counts: npt.NDArray[np.uint64] | None
    signs: npt.NDArray[np.uint8]


def measure(
    raw: Buffer,
    base: Buffer,
    dtype: DType,
    positions: npt.NDArray[np.int64],
    workspace: Workspace,
) -> BlockFacts:
    """The facts of a block; `positions`: elements of the block whose signs are sampled."""
    return facts_of(analyse(raw, base, dtype, workspace), dtype, positions)


def facts_of(
    statistics: BlockStatistics, dtype: DType, positions: npt.NDArray[np.int64]
) -> BlockFacts:
    """The facts of a block whose statistics an encoder made on the way."""
    sizes, counts = None, None
    if dtype.bits == _COUNTED_BITS:
        sizes, counts = _counts(statistics)
    return BlockFacts(
        energy=statistics.energy,
        changed=statistics.changed,
        largest=statistics.largest,
        threshold=statistics.threshold,
        magnitude=statistics.magnitude,
        kept=statistics.large,
        coarse=digest(statistics.packed.data),
        sizes=sizes,
        counts=counts,
        signs=trits_at(statistics.packed, positions),
    )


def merge_counts(parts: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Distinct sizes (uint32 bits, rising) and uint64 counts of several such lists together."""
    if not parts:
        return np.zeros(0, np.uint32), np.zeros(0, np.uint64)
    sizes = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    # Equal sizes are summed, whatever their order; a stable sort knows lists that rise.
    order = np.argsort(sizes, kind="stable")
    sizes, counts = sizes[order], counts[order]
    if not len(sizes):
        return sizes, counts
    starts = np.flatnonzero(np.concatenate([[True], sizes[1:] != sizes[:-1]]))
    return sizes[starts], np.add.reduceat(counts, starts)


def _counts(statistics: BlockStatistics) -> tuple[Any, Any]:
    short = statistics.keys.astype(np.uint32) << 16
    held = statistics.exact > 0
    return merge_counts(
        [
            (short[held], statistics.exact[held].astype(np.uint64)),
            (statistics.longs, statistics.long_counts.astype(np.uint64)),
        ]
    )
