"""One tensor on its way to a plan: all that is known of it before depths are chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mergepipe.catalog.view import TensorView
from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.ids import ObjectId
from mergepipe.methods.parameters import Settings
from mergepipe.methods.protocol import Method, Need, NeedKind
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.methods.terms import Scalars
from mergepipe.objects.merging import Depth, TensorPlan, TermKind
from mergepipe.planner.costs import Depths, TensorCosts, tensor_costs
from mergepipe.planner.gains import ExpertGains, tensor_gains
from mergepipe.planner.inputs import TensorInputs, Tensors
from mergepipe.planner.profiles import ProfileTable
from mergepipe.planner.reads import EncodingSource
from mergepipe.planner.recipe import Recipe
from mergepipe.planner.resolution import known_needs, passes_of, resolve, stored_scalars, supposed
from mergepipe.planner.steps import Grid, output_block_bytes
from mergepipe.planner.table import TensorCost, kept_cost, tensor_cost

Values = Mapping[Need, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Copied:
    """An output tensor that is one of the inputs', as it stands."""

    inputs: TensorInputs
    source: ObjectId

    def plan(self) -> TensorPlan:
        """Its line of the plan."""
        experts = self.inputs.experts
        return _line(self.inputs, self.source, experts, (), Scalars(()))

    def cost(self, tensors: Tensors) -> TensorCost:
        """Nothing is read."""
        found = [None if one is None else tensors[one] for one in self.inputs.experts]
        raw = [0 if one is None else byte_length(dtype_of(one.dtype), one.shape) for one in found]
        blocks = [0 if one is None else len(one.block_ids()) for one in found]
        return kept_cost(self.plan(), raw, blocks)


@dataclass(frozen=True, slots=True)
class Draft:
    """An output tensor that is computed.

    values     of those of its method's needs that profiles know
    trims      thresholds that no profile knows: measured from all blocks, before depths are chosen
    late       statistics of what is read: measured at the depths that were chosen
    views      per expert, its profile; None: read exactly
    elements   of each output block
    raw_bytes  of each expert's tensor
    cast       whether the output has another dtype than the layout
    """

    inputs: TensorInputs
    method: Method
    settings: Settings
    values: Values
    trims: tuple[Need, ...]
    late: tuple[Need, ...]
    views: tuple[TensorView | None, ...]
    costs: TensorCosts
    elements: tuple[int, ...]
    raw_bytes: tuple[int, ...]
    cast: bool

    @property
    def trim_passes(self) -> list[int]:
        """Per expert, passes over all its blocks for thresholds."""
        return passes_of(self.trims, len(self.views))

    @property
    def passes(self) -> list[int]:
        """Per expert, passes over its planned blocks for statistics, beside the merge itself."""
        return passes_of(self.late, len(self.views))

    @property
    def full_bytes(self) -> int:
        """Expert bytes of the exact merge, all passes."""
        passes = 1 + np.array(self.passes) + np.array(self.trim_passes)
        full = self.costs.bytes_by_expert(self.costs.full)
        return int((full * passes).sum()) - self.costs.saved_bytes(self.costs.full)

    @property
    def must_read(self) -> npt.NDArray[np.bool_]:
        """Blocks that are not for sale: nothing is known of what they change."""
        unknown = np.zeros_like(self.costs.equal)
        for row, view in enumerate(self.views):
            unknown[row] = True if view is None else np.isnan(view.energies)
        return unknown & ~self.costs.equal

    def forced_bytes(self) -> int:
        """Expert bytes that every plan reads."""
        full = self.costs.bytes_by_expert(self.costs.full)
        must = self.costs.bytes_by_expert(
            np.where(self.must_read, np.uint8(Depth.EXACT), np.uint8(Depth.OMITTED))
        )
        trims, further = np.array(self.trim_passes), np.array(self.passes)
        return int((full * trims + must * (1 + further)).sum())

    def supposed_values(self) -> Values:
        """What is known of the method's needs, and guesses at the rest."""
        return supposed((*self.late, *self.trims), self.values, len(self.views))

    def supposed_scalars(self) -> Scalars:
        """Scalars good enough to choose depths by."""
        return self.method.resolve(self.settings, self.supposed_values())

    def gains(self) -> list[ExpertGains | None]:
        """What every depth of every expert's blocks is worth."""
        return tensor_gains(self.views, self.supposed_scalars(), self.elements)

    def scalars(self, values: Values, depths: Depths) -> Scalars:
        """The final scalars."""
        coarse = [bool((own == Depth.COARSE).any()) for own in depths]
        return resolve(self.method, self.settings, values, self.views, coarse)

    def plan(self, depths: Depths, scalars: Scalars) -> TensorPlan:
        """Its line of the plan."""
        columns = tuple(own.tobytes() for own in depths)
        return _line(self.inputs, self.inputs.base, self.inputs.experts, columns, scalars)

    def cost(self, plan: TensorPlan) -> TensorCost:
        """What its line of the plan reads and keeps."""
        return tensor_cost(
            plan,
            self.costs,
            self.views,
            raw_bytes=self.raw_bytes,
            passes=self.passes,
            trim_passes=self.trim_passes,
            every_step=self.cast or not self.method.omitted_is_noop,
        )


def draft_tensor(
    recipe: Recipe,
    method: Method,
    settings: Settings,
    inputs: TensorInputs,
    tensors: Tensors,
    profiles: ProfileTable,
    find: EncodingSource,
) -> Draft | Copied:
    """What is known of one output tensor."""
    layout = tensors[inputs.layout]
    cast = inputs.dtype.name != layout.dtype
    needs = method.needs(settings)
    source = _copied(recipe, method, settings, needs, inputs, tensors)
    if inputs.verbatim or not layout.blocks:
        source = source or inputs.layout
    if source is not None:
        return Copied(inputs, source)
    output_block_bytes(layout, inputs.dtype)
    grid = Grid.of(layout)
    experts = [None if one is None else tensors[one] for one in inputs.experts]
    costs = tensor_costs(
        layout,
        None if inputs.base is None else layout,
        experts,
        find,
        deltas=[expert.kind is not TermKind.FULL for expert in recipe.experts],
        every_step=cast or not method.omitted_is_noop,
    )
    views = tuple(profiles.views(inputs.base, inputs.experts, grid.blocks))
    unchanged = [bool(own.all()) for own in costs.equal]
    known = known_needs(needs, views, unchanged, grid.elements)
    return Draft(
        inputs,
        method,
        settings,
        known,
        tuple(one for one in needs if one.kind is NeedKind.TRIM and one not in known),
        tuple(one for one in needs if one.kind is not NeedKind.TRIM),
        views,
        costs,
        tuple(end - start for start, end in map(grid.span, range(grid.blocks))),
        tuple(0 if one is None else byte_length(dtype_of(one.dtype), one.shape) for one in experts),
        cast,
    )


def _copied(
    recipe: Recipe,
    method: Method,
    settings: Settings,
    needs: Sequence[Need],
    inputs: TensorInputs,
    tensors: Tensors,
) -> ObjectId | None:
    """The tensor that the output is, if merging would only copy it; by identity alone."""
    if any(expert.kind is not TermKind.FULL for expert in recipe.experts):
        return None
    reference = inputs.base if inputs.base is not None else inputs.experts[0]
    if method.sweep is WEIGHTED_SUM and len(inputs.experts) == 1:
        reference = inputs.experts[0]  # passed through, whatever the base is
    if reference is None or tensors[reference].dtype != inputs.dtype.name:
        return None
    if any(one not in (None, reference) for one in inputs.experts):
        return None
    if method.omitted_is_noop and inputs.base is not None:
        return reference
    # A mean of equals is what they are.
    scalars = method.resolve(settings, supposed(needs, {}, len(inputs.experts)))
    total = sum(own.weight for own in scalars.experts)
    return reference if scalars.normalize or abs(total - 1.0) < _ROUNDING else None


_ROUNDING = 1e-12


def _line(
    inputs: TensorInputs,
    base: ObjectId | None,
    experts: tuple[ObjectId | None, ...],
    depths: tuple[bytes, ...],
    scalars: Scalars,
) -> TensorPlan:
    return TensorPlan(
        inputs.file,
        inputs.name,
        inputs.dtype.name,
        base,
        experts,
        depths,
        scalars.elect,
        scalars.normalize,
        scalars.scale,
        stored_scalars(scalars),
    )
