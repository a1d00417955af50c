"""Which changes of a block are large, by a threshold from a sample of them.

For where the threshold is nobody else's business: the coarse layer inside `successor` serves its
exact layer alone. A survey counts all changes by size, which takes three times as long.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs import survey
from mergepipe.codecs.survey import changes_of_halves, changes_of_singles
from mergepipe.codecs.trits import CHUNK, STRIPE, classify_into, pack_into, packed_length
from mergepipe.codecs.weights import Weights
from mergepipe.codecs.workspace import Workspace
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import int64, read_only, uint8, uint16, uint32, void

_TILE = 8 * CHUNK
# Runs of neighbours, as far apart as no matrix is wide: a sample of columns would be none of rows.
_RUN = 320
_STRIDE = 7 * _RUN
_LEAST = 1 << 16  # weights of which a sample is taken
_LEAST_LARGE = 1 << 7  # large changes in a sample that say what is large

_U8 = uint8[::1]
_READ_U16 = read_only(uint16[::1])
_READ_U32 = read_only(uint32[::1])
_SIZE = np.uint32(0x7FFFFFFF)


class Marks(Struct, frozen=True):
    """The large changes of a block; arrays of the workspace, good until the next ones.

    trits            uint8, padded to pairs of chunks
    packed, classes  as in trits.py, in memory of their own
    key              least key (survey.py) of a large change
    magnitude        mean size of large changes
    """

    weights: Weights
    trits: Any
    packed: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    key: int
    magnitude: float

    @property
    def threshold(self) -> float:
        """The least size of a large change."""
        return survey.size_of_key(self.key)


@kernel()
def _mark(changes: Any, least: Any, trits: Any) -> None:
    for i in range(changes.size):
        bits = changes[i]
        way = np.uint32(np.uint32(2) - np.uint32(bits >> np.uint32(31)))
        trits[i] = np.uint8(way if np.uint32(bits & _SIZE) >= least else np.uint32(0))


@kernel(void(_READ_U16, _READ_U16, int64, int64, _U8, _U8, _U8))
def mark_halves(
    tuned: Any, base: Any, mantissa_bits: Any, key: Any, trits: Any, packed: Any, classes: Any
) -> None:
    """Trits of a block of 16-bit floats, packed too, and the density class of every chunk.

    key    least key of a large change, at least 1
    trits  uint8, padded to whole pairs of chunks, written
    """
    tile = on_stack(_TILE, np.uint32)
    for start in range(0, trits.size, _TILE):
        end = min(start + _TILE, trits.size)
        stop = min(end, tuned.size)
        changes = tile[: stop - start]
        changes_of_halves(tuned[start:stop], base[start:stop], mantissa_bits, changes)
        _mark(changes, np.uint32(key << 16), trits[start:stop])
        trits[stop:end] = 0
        pack_into(trits[start:end], packed[start // 5 : end // 5])
        classify_into(trits[start:end], classes[start // CHUNK : end // CHUNK])


@kernel(void(_READ_U32, _READ_U32, int64, _U8, _U8, _U8))
def mark_singles(tuned: Any, base: Any, key: Any, trits: Any, packed: Any, classes: Any) -> None:
    """`mark_halves` for float32."""
    tile = on_stack(_TILE, np.uint32)
    for start in range(0, trits.size, _TILE):
        end = min(start + _TILE, trits.size)
        stop = min(end, tuned.size)
        changes = tile[: stop - start]
        changes_of_singles(tuned[start:stop], base[start:stop], changes)
        _mark(changes, np.uint32(key << 16), trits[start:stop])
        trits[stop:end] = 0
        pack_into(trits[start:end], packed[start // 5 : end // 5])
        classify_into(trits[start:end], classes[start // CHUNK : end // CHUNK])


def mark_block(weights: Weights, large_share: float, workspace: Workspace) -> Marks:
    """Mark about the `large_share` of a block's changes that are largest."""
    tuned, base = (
        (weights.tuned, weights.base)
        if weights.tuned_wide is None
        else (weights.tuned_wide, weights.base_wide)
    )
    key, magnitude = 1, 0.0
    large = 0
    if weights.count >= _LEAST:
        key, large, magnitude = _threshold(
            _sampled(tuned), _sampled(base), weights, large_share, workspace
        )
    if large < _LEAST_LARGE:
        key, _, magnitude = _threshold(tuned, base, weights, large_share, workspace)
    packed = np.empty(packed_length(weights.count), np.uint8)
    trits = workspace.array("trits", packed.size * 5, np.uint8)
    classes = np.empty(packed.size // STRIPE, np.uint8)
    if weights.tuned_wide is None:
        width = weights.format.mantissa_bits
        mark_halves(tuned, base, width, key, trits, packed, classes)
    else:
        mark_singles(tuned, base, key, trits, packed, classes)
    return Marks(weights, trits, packed, classes, key, magnitude)


def _sampled(values: Any) -> Any:
    rows = values.size // _STRIDE
    return np.ascontiguousarray(values[: rows * _STRIDE].reshape(rows, _STRIDE)[:, :_RUN]).reshape(
        -1
    )


def _threshold(
    tuned: Any, base: Any, weights: Weights, large_share: float, workspace: Workspace
) -> tuple[int, int, float]:
    """Least key of a large change, how many there are, and their mean size."""
    counts = workspace.array("keys", survey.COUNTS, np.uint32)
    counts[:] = 0
    uppers = workspace.array("uppers", tuned.size, np.uint16)
    if weights.tuned_wide is None:
        none, found = np.empty(0, np.uint32), np.zeros(1, np.uint32)
        width = weights.format.mantissa_bits
        largest = survey.survey_halves(tuned, base, width, uppers, counts, none, found)
    else:
        largest = survey.survey_singles(tuned, base, uppers, counts)
    sums = np.zeros(3)
    key = survey.choose_threshold(counts, largest, int(large_share * tuned.size), sums)
    large, total, _ = sums.tolist()
    return key, int(large), float(np.float32(total / large)) if large else 0.0
