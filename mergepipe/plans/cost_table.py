"""What a plan reads, keeps and leaves out: per tensor, per expert and in all."""

from collections.abc import Iterable, Sequence
from math import inf

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.catalog.view import TensorView
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.methods.trim import sum_in_order
from mergepipe.objects.depths import Depth
from mergepipe.plans.costs import NOT_THERE, Depths
from mergepipe.plans.passes import Reading
from mergepipe.reprs import brief

Floats = npt.NDArray[np.float64]


@brief
class ExpertCost(Struct, frozen=True):
    """What one tensor takes from a model (its place among the plan's), at any stage.

    bytes_full, bytes_planned   as stored, over all passes
    energy, energy_kept         sum of (w d)^2, and what the planned depths capture of it; None
                                where there is no profile (then everything is read)
    density                     share of its weights that a trim or a random mask leaves, ties
                                included; None where no profile tells
    blocks_layerless            that a profile knows and no coarse layer: read whole or not at all
    """

    model: int
    blocks_exact: int
    blocks_coarse: int
    blocks_omitted: int
    blocks_equal: int
    bytes_raw: int
    bytes_full: int
    bytes_planned: int
    energy: float | None
    energy_kept: float | None
    density: float | None = 1.0
    blocks_layerless: int = 0

    @property
    def blocks_full(self) -> int:
        """Blocks that the exact merge reads."""
        return self.blocks_exact + self.blocks_coarse + self.blocks_omitted

    @property
    def share_kept(self) -> float:
        """The share of its delta energy that the plan keeps."""
        return _share(self.energy, self.energy_kept)


@brief
class TensorCost(Struct, frozen=True):
    """One output tensor.

    kept          it is a tensor that is there already: nothing is read or written
    base_bytes    at most: a method that does without a base reads it only where experts lean on it
    saved_*       bytes that experts share, and which therefore count once
    omitted_norm  at most the L2 norm of what additive methods miss
    """

    name: str
    kept: bool
    experts: tuple[ExpertCost, ...]
    base_bytes: int = 0
    saved_full: int = 0
    saved_planned: int = 0
    omitted_norm: float = 0.0

    @property
    def bytes_full(self) -> int:
        """Expert bytes of the exact merge."""
        return sum(expert.bytes_full for expert in self.experts) - self.saved_full

    @property
    def bytes_planned(self) -> int:
        """Expert bytes of the plan."""
        return sum(expert.bytes_planned for expert in self.experts) - self.saved_planned


@brief
class CostTable(Struct, frozen=True):
    """A plan's costs; `budget_bytes` is None without a limit."""

    tensors: tuple[TensorCost, ...]
    budget_bytes: int | None

    @property
    def expert_bytes_raw(self) -> int:
        """Size of the experts' tensors, as raw weights."""
        return sum(expert.bytes_raw for expert in self._experts())

    @property
    def expert_bytes_full(self) -> int:
        """Stored expert bytes that the exact merge reads."""
        return sum(tensor.bytes_full for tensor in self.tensors)

    @property
    def expert_bytes_planned(self) -> int:
        """Stored expert bytes that the plan reads, at most."""
        return sum(tensor.bytes_planned for tensor in self.tensors)

    @property
    def base_bytes(self) -> int:
        """Stored bytes of the base that the plan reads."""
        return sum(tensor.base_bytes for tensor in self.tensors)

    @property
    def blocks_exact(self) -> int:
        """Expert blocks read exactly."""
        return sum(expert.blocks_exact for expert in self._experts())

    @property
    def blocks_coarse(self) -> int:
        """Expert blocks of which the coarse layer is read."""
        return sum(expert.blocks_coarse for expert in self._experts())

    @property
    def blocks_omitted(self) -> int:
        """Expert blocks that are left out."""
        return sum(expert.blocks_omitted for expert in self._experts())

    @property
    def blocks_equal(self) -> int:
        """Expert blocks that are the base's."""
        return sum(expert.blocks_equal for expert in self._experts())

    @property
    def blocks_full(self) -> int:
        """Expert blocks that the exact merge reads."""
        return self.blocks_exact + self.blocks_coarse + self.blocks_omitted

    @property
    def energy_kept(self) -> float:
        """Share of the weighted delta energy that the plan keeps, as far as it is known."""
        known = [expert for expert in self._experts() if expert.energy is not None]
        energy = sum(part.energy or 0.0 for part in known)
        return _share(energy, sum(part.energy_kept or 0.0 for part in known))

    @property
    def omitted_norm(self) -> float:
        """At most the L2 norm of what additive methods miss, over all tensors."""
        return float(np.sqrt(sum(tensor.omitted_norm**2 for tensor in self.tensors)))

    def _experts(self) -> Iterable[ExpertCost]:
        return (expert for tensor in self.tensors for expert in tensor.experts)


@brief
class LeafNumbers(Struct, frozen=True):
    """What the cost of a leaf is told by.

    weight   of its own line; share: what its delta is multiplied by in the result, where no signs
             are elected
    """

    model: int
    view: TensorView | None
    scalars: ExpertScalars
    share: float
    raw_bytes: int


def tensor_cost(
    name: str,
    depths: Depths,
    leaves: Sequence[LeafNumbers],
    readings: Sequence[Reading],
    *,
    every_step: bool,
) -> TensorCost:
    """The costs of one planned tensor. depths, leaves: a row each for what it takes from models.

    every_step  whether the base is read also where no input adds anything to it
    """
    full, planned = np.zeros(len(leaves), np.int64), np.zeros(len(leaves), np.int64)
    base_bytes = 0
    for reading in readings:
        np.add.at(full, reading.rows, reading.full_bytes)
        np.add.at(planned, reading.rows, reading.planned_bytes(depths))
        base_bytes += reading.base_bytes(depths, every_step=every_step)
    coarse = np.full(depths.shape, NOT_THERE, np.int64)
    coarse[readings[0].rows] = readings[0].costs.coarse
    whole = np.zeros(depths.shape, np.int64)
    whole[readings[0].rows] = readings[0].costs.exact
    missing = np.zeros(depths.shape[1])
    experts = []
    for row, leaf in enumerate(leaves):
        energy = kept = None
        if leaf.view is not None:
            scale = leaf.scalars.coarse_scale
            energies, left = (
                leaf.view.known_energies,
                leftover(leaf.view, depths[row], scale),
            )
            square = leaf.scalars.weight**2
            energy = square * sum_in_order(energies)
            kept = energy - square * sum_in_order(left)
            missing += abs(leaf.share) * np.sqrt(np.maximum(left, 0.0))
        elif (depths[row] == Depth.EQUAL).all():  # no profile has a tensor that is the base's
            energy = kept = 0.0
        counts = np.bincount(depths[row], minlength=4)
        paid = (depths[row] != Depth.EQUAL) & (whole[row] > 0)
        layerless = 0 if leaf.view is None else int((paid & (coarse[row] == NOT_THERE)).sum())
        experts.append(
            ExpertCost(
                model=leaf.model,
                blocks_exact=int(counts[Depth.EXACT]),
                blocks_coarse=int(counts[Depth.COARSE]),
                blocks_omitted=int(counts[Depth.OMITTED]),
                blocks_equal=int(counts[Depth.EQUAL]),
                bytes_raw=leaf.raw_bytes,
                bytes_full=int(full[row]),
                bytes_planned=int(planned[row]),
                energy=energy,
                energy_kept=kept,
                density=_density(leaf.view, leaf.scalars, leaf.raw_bytes),
                blocks_layerless=layerless,
            )
        )
    everything = np.where(depths == Depth.EQUAL, depths, np.uint8(Depth.EXACT))
    return TensorCost(
        name=name,
        kept=False,
        experts=tuple(experts),
        base_bytes=base_bytes,
        saved_full=sum(reading.saved_bytes(everything) for reading in readings),
        saved_planned=sum(reading.saved_bytes(depths) for reading in readings),
        omitted_norm=float(np.sqrt(sum_in_order(missing**2))),
    )


def kept_cost(
    name: str, models: Sequence[int], raw_bytes: Sequence[int], blocks: Sequence[int]
) -> TensorCost:
    """The costs of a tensor that is taken over as it is: none. blocks: of each input's tensor."""
    experts = tuple(
        ExpertCost(
            model=model,
            blocks_exact=0,
            blocks_coarse=0,
            blocks_omitted=0,
            blocks_equal=count,
            bytes_raw=raw,
            bytes_full=0,
            bytes_planned=0,
            energy=0.0,
            energy_kept=0.0,
        )
        for model, count, raw in zip(models, blocks, raw_bytes, strict=True)
    )
    return TensorCost(name=name, kept=True, experts=experts)


def leftover(view: TensorView, depths: Depths, scale: float) -> Floats:
    """Per block, the energy of what a depth does not tell of the change.

    An estimate of energy C, scaled by s, leaves E - 2 s C + s^2 C (docs/format-merge.md).
    """
    energies = view.known_energies
    left = np.where(depths == Depth.OMITTED, energies, 0.0)
    if view.has_coarse:
        captured = view.estimate_energies * (2.0 * scale - scale * scale)
        left = np.where(depths == Depth.COARSE, energies - captured, left)
    return left


def shares(scalars: Scalars) -> list[float]:
    """What each input's delta is multiplied by in the result, where no signs are elected."""
    divisor = 1.0
    if scalars.normalize:
        divisor = abs(sum(of_expert.weight for of_expert in scalars.experts)) or 1.0
    return [expert.weight * scalars.scale / divisor for expert in scalars.experts]


def _density(view: TensorView | None, scalars: ExpertScalars, raw_bytes: int) -> float | None:
    if scalars.threshold <= 0 and scalars.ceiling == inf:
        return scalars.density
    if view is None or not len(view.distinct[1]):
        return None
    magnitudes, counts = view.distinct
    first = int(np.searchsorted(magnitudes, np.float32(scalars.threshold)))
    last = int(np.searchsorted(magnitudes, np.float32(scalars.ceiling), "right"))
    elements = raw_bytes // 2  # only 16-bit dtypes have counts
    unchanged = 0 if scalars.threshold > 0 else elements - int(counts.sum())
    return (int(counts[first:last].sum()) + unchanged) / elements


def _share(energy: float | None, kept: float | None) -> float:
    if not energy or kept is None:
        return 1.0
    return min(1.0, max(0.0, kept / energy))


class ExpertTotals(Struct, frozen=True):
    """One expert of a plan. Bytes as stored, but for `bytes_raw`.

    energy_kept  the share of the energy of its changes that the plan keeps; 1 where none is known
    density      the share of its weights that a trim or random mask leaves, ties included; None
                 where no profile tells
    """

    name: str
    bytes_raw: int
    bytes_full: int
    bytes_planned: int
    blocks_exact: int
    blocks_coarse: int
    blocks_omitted: int
    blocks_equal: int
    energy_kept: float
    density: float | None


def totals(costs: CostTable, model: int, name: str) -> ExpertTotals:
    """The totals of the model at a place among the plan's, which is called `name`."""
    computed = [
        cost
        for tensor in costs.tensors
        if not tensor.kept
        for cost in tensor.experts
        if cost.model == model
    ]
    costs_of_model = [
        cost for tensor in costs.tensors for cost in tensor.experts if cost.model == model
    ]
    known = [cost for cost in costs_of_model if cost.energy is not None]
    energy = sum(cost.energy or 0.0 for cost in known)
    kept = sum(cost.energy_kept or 0.0 for cost in known)
    size = sum(cost.bytes_raw for cost in computed)
    density: float | None = 1.0
    if any(cost.density is None for cost in computed):
        density = None
    elif size:
        # Of the tensors that are computed, weighted by their size.
        density = sum((cost.density or 0.0) * cost.bytes_raw for cost in computed) / size
    return ExpertTotals(
        name=name,
        bytes_raw=sum(cost.bytes_raw for cost in costs_of_model),
        bytes_full=sum(cost.bytes_full for cost in costs_of_model),
        bytes_planned=sum(cost.bytes_planned for cost in costs_of_model),
        blocks_exact=sum(cost.blocks_exact for cost in costs_of_model),
        blocks_coarse=sum(cost.blocks_coarse for cost in costs_of_model),
        blocks_omitted=sum(cost.blocks_omitted for cost in costs_of_model),
        blocks_equal=sum(cost.blocks_equal for cost in costs_of_model),
        energy_kept=min(1.0, max(0.0, kept / energy)) if energy else 1.0,
        density=density,
    )
