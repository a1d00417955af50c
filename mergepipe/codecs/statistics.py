"""What one pass over a block and its base tells of the change, for profiles and for encoding."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs import survey
from mergepipe.codecs.marks import Marks
from mergepipe.codecs.trits import CHUNK, classify_into, pack_into, packed_length
from mergepipe.codecs.weights import Weights
from mergepipe.codecs.workspace import Workspace


class BlockStatistics(Struct, frozen=True):
    """Figures of `d = x - base` in float32; infinite and NaN changes count as zero ones.

    count       weights                     changed     of them, with other bits than the base's
    large       non-zero trits              threshold   least |d| of a large change
    magnitude   mean |d| of large changes   largest     greatest |d|
    energy      sum of d squared            captured    energy less that of d minus its estimate
    keys, exact, inexact  the |d| that occur, by their upper 16 bits as float32 (rising): how many
                have no further bits, and how many do
    longs, long_counts    the |d| with further bits, as float32 bits (rising), and how often each
                occurs: with `keys` and `exact` all sizes, exactly; none for float32
    packed      trits, as in trits.py

    Sums are float64 over `keys`, the largest first, an inexact |d| as the middle of its key: within
    1e-4 of the sum over weights, and the same on every machine.
    """

    count: int
    changed: int
    large: int
    threshold: float
    magnitude: float
    largest: float
    energy: float
    captured: float
    keys: npt.NDArray[np.uint16]
    exact: npt.NDArray[np.uint32]
    inexact: npt.NDArray[np.uint32]
    longs: npt.NDArray[np.uint32]
    long_counts: npt.NDArray[np.int64]
    packed: npt.NDArray[np.uint8]


class Survey(Marks, frozen=True):
    """What the first pass over a block found; arrays of the workspace, good until the next one.

    counts  as in survey.survey_halves
    """

    counts: Any
    longs: Any
    largest_bits: int
    large: int
    energy: float

    def statistics(self) -> BlockStatistics:
        """The figures, in memory of their own."""
        counts, weights = self.counts, self.weights
        past = (self.largest_bits >> 16) + 1
        keys = np.flatnonzero(counts[:past] | counts[survey.KEYS : survey.KEYS + past])
        narrow = weights.tuned_wide is None
        x, b = (weights.tuned, weights.base) if narrow else (weights.tuned_wide, weights.base_wide)
        longs = np.sort(self.longs)
        new = np.ones(longs.size, np.bool_)
        np.not_equal(longs[1:], longs[:-1], out=new[1:])
        starts = np.flatnonzero(new)
        return BlockStatistics(
            count=weights.count,
            changed=int(np.count_nonzero(x != b)),
            large=self.large,
            threshold=self.threshold,
            magnitude=self.magnitude,
            largest=survey.size_of_bits(self.largest_bits),
            energy=self.energy,
            captured=self.large * self.magnitude * self.magnitude,
            keys=keys.astype(np.uint16),
            exact=counts[keys].copy(),
            inexact=counts[keys + survey.KEYS].copy(),
            longs=longs[starts],
            long_counts=np.diff(np.append(starts, longs.size)),
            packed=self.packed,
        )


def survey_block(
    weights: Weights, large_share: float, exactly: bool, workspace: Workspace
) -> Survey:
    """Measure a block's changes and mark the `large_share` of them that are largest.

    exactly  gather `longs` too, for `statistics`
    """
    size = weights.count
    counts = workspace.array("keys", survey.COUNTS, np.uint32)
    counts[:] = 0
    uppers = workspace.array("uppers", size, np.uint16)
    long_count = np.zeros(1, np.uint32)
    longs = workspace.array(
        "longs", size if exactly and weights.tuned_wide is None else 0, np.uint32
    )
    if weights.tuned_wide is None:
        width = weights.format.mantissa_bits
        largest = survey.survey_halves(
            weights.tuned, weights.base, width, uppers, counts, longs, long_count
        )
    else:
        largest = survey.survey_singles(weights.tuned_wide, weights.base_wide, uppers, counts)
    sums = np.zeros(3)
    key = survey.choose_threshold(counts, largest, int(large_share * size), sums)
    large, total, energy = sums.tolist()
    packed = np.empty(packed_length(size), np.uint8)
    trits = workspace.array("trits", packed.size * 5, np.uint8)
    survey.trits_into(uppers, key, trits)
    trits[size:] = 0
    pack_into(trits, packed)
    classes = np.empty(trits.size // CHUNK, np.uint8)
    classify_into(trits, classes)
    magnitude = float(np.float32(total / large)) if large else 0.0
    return Survey(
        weights=weights,
        counts=counts,
        longs=longs[: int(long_count[0])],
        trits=trits,
        packed=packed,
        classes=classes,
        key=key,
        largest_bits=largest,
        large=int(large),
        energy=energy,
        magnitude=magnitude,
    )
