"""A profile's columns as arrays, and what follows from them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mergepipe.errors import Corruption
from mergepipe.ids import ID_BYTES
from mergepipe.names import quoted
from mergepipe.objects.merging import TensorProfile

SAMPLES = 4096
# Of every byte, the five signs that it packs, the first in the lowest place.
_SIGNS = np.array([0, -1, 1], np.int8)[np.arange(256)[:, None] // 3 ** np.arange(5) % 3]
Floats = npt.NDArray[np.float64]


def sample_positions(count: int) -> npt.NDArray[np.int64]:
    """The elements of a tensor of `count` whose signs a profile keeps, ascending."""
    samples = min(count, SAMPLES)
    if samples == 0:
        return np.zeros(0, np.int64)
    return (2 * np.arange(samples, dtype=np.int64) + 1) * count // (2 * samples)


@dataclass(frozen=True)
class TensorView:
    """One tensor's profile; arrays have one entry per block unless said otherwise.

    Raises Corruption when made of columns that do not fit each other.
    """

    source: TensorProfile

    def __post_init__(self) -> None:
        blocks = len(self.source.energies) // 8
        widths = {"energies": 8, "changed": 4, "largest": 4}
        coarse = {"thresholds": 4, "magnitudes": 4, "kept": 4, "coarse": ID_BYTES}
        if self.source.thresholds:
            widths |= coarse
        for name, width in widths.items():
            if len(getattr(self.source, name)) != width * blocks:
                raise Corruption(f"profile of {quoted(self.source.name)}: column {name} is cut")
        if len(self.source.values) * 2 != len(self.source.counts):
            raise Corruption(f"profile of {quoted(self.source.name)}: its counts do not pair")

    @property
    def blocks(self) -> int:
        """Blocks of the tensor."""
        return len(self.source.energies) // 8

    @property
    def has_coarse(self) -> bool:
        """Whether the tensor has a coarse reading."""
        return bool(self.source.thresholds)

    @cached_property
    def energies(self) -> Floats:
        """Sum of d^2; NaN where the block has no base block."""
        return np.frombuffer(self.source.energies, "<f8")

    @cached_property
    def known_energies(self) -> Floats:
        """Sum of d^2; 0 where the block has no base block."""
        return np.where(np.isnan(self.energies), 0.0, self.energies)

    @cached_property
    def changed(self) -> npt.NDArray[np.uint32]:
        """Weights whose bits differ."""
        return np.frombuffer(self.source.changed, "<u4")

    @cached_property
    def largest(self) -> npt.NDArray[np.float32]:
        """Largest |d|."""
        return np.frombuffer(self.source.largest, "<f4")

    @cached_property
    def thresholds(self) -> npt.NDArray[np.float32]:
        """Smallest |d| that the coarse layer keeps; empty without one."""
        return np.frombuffer(self.source.thresholds, "<f4")

    @cached_property
    def magnitudes(self) -> npt.NDArray[np.float32]:
        """Mean |d| of what the coarse layer keeps; empty without one."""
        return np.frombuffer(self.source.magnitudes, "<f4")

    @cached_property
    def kept(self) -> npt.NDArray[np.uint32]:
        """How many weights the coarse layer keeps; empty without one."""
        return np.frombuffer(self.source.kept, "<u4")

    @cached_property
    def estimate_energies(self) -> Floats:
        """Energy of the coarse estimate, C = magnitude^2 kept; empty without one."""
        magnitudes = self.magnitudes.astype(np.float64)
        return magnitudes * magnitudes * self.kept

    @property
    def coarse_scale(self) -> float:
        """E / C over the tensor: the factor that makes the estimate unbiased, <d, estimate> = E.

        Why methods that add want it, and those that elect do not: docs/design/coarse-layer.md.
        """
        total = float(np.nansum(self.energies))
        estimated = float(self.estimate_energies.sum())
        return total / estimated if estimated > 0 else 1.0

    @cached_property
    def distinct(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64]]:
        """Distinct |d| of the whole tensor, ascending, and how often each occurs; may be empty."""
        bits = np.cumsum(np.frombuffer(self.source.values, "<u4"), dtype=np.uint32)
        return bits.view(np.float32), np.frombuffer(self.source.counts, "<u8")

    def signs(self, count: int) -> npt.NDArray[np.int8]:
        """Signs (-1, 0, 1) of the coarse reading at the sample positions of `count` elements."""
        samples = min(count, SAMPLES)
        signs: npt.NDArray[np.int8] = _SIGNS[np.frombuffer(self.source.signs, np.uint8)]
        return signs.reshape(-1)[:samples]
