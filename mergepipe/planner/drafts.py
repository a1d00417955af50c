"""One line on its way to a plan: all that is known of it before depths are chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs
from msgspec.structs import replace

from mergepipe.catalog.view import TensorView
from mergepipe.dtypes import dtype_of
from mergepipe.methods import statistics
from mergepipe.methods.parameters import Settings
from mergepipe.methods.protocol import Method, Need, Scope
from mergepipe.methods.statistics import COUNTED
from mergepipe.methods.terms import Scalars
from mergepipe.objects.depths import Depth
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import LinePlan
from mergepipe.objects.store import Tensors
from mergepipe.planner.estimation import estimated
from mergepipe.planner.gains import ExpertGains, tensor_gains
from mergepipe.planner.lines import Line
from mergepipe.planner.resolution import known_needs, passes_of, resolve, supposed
from mergepipe.plans.costs import Depths
from mergepipe.plans.equality import equal_blocks
from mergepipe.plans.numbers import stored_numbers
from mergepipe.plans.profile_views import ProfileTable
from mergepipe.plans.trees import taken
from mergepipe.plans.units import output_block_bytes, widest

Values = Mapping[Need, Sequence[float]]


class Draft(Struct, frozen=True):
    """A line that is computed; `unplanned` is its plan but for depths and numbers.

    values     of those of its method's needs that profiles know
    trims      thresholds that no profile knows: measured from all blocks, before depths are chosen
    late       statistics of what is read: measured at the depths that were chosen
    views      per input, its profile; None: read exactly
    equal      blocks that are the base's, a row per input
    elements   of each output block
    """

    unplanned: LinePlan
    method: Method
    settings: Settings
    values: Values
    trims: tuple[Need, ...]
    late: tuple[Need, ...]
    views: tuple[TensorView | None, ...]
    equal: npt.NDArray[np.bool_]
    elements: tuple[int, ...]

    @property
    def trim_passes(self) -> list[int]:
        """Per input, passes over all its blocks for thresholds."""
        return passes_of(self.trims, len(self.views))

    @property
    def passes(self) -> list[int]:
        """Per input, passes over its planned blocks for statistics, beside the merge itself."""
        return passes_of(self.late, len(self.views))

    @property
    def scope(self) -> Scope:
        """The widest of its method's and its statistics': what is made or measured at once."""
        return widest(self.method.scope, *(statistics.of(need).scope for need in self.measured))

    @property
    def measured(self) -> tuple[Need, ...]:
        """All that no profile knows."""
        return (*self.trims, *self.late)

    @property
    def looks_at_lines(self) -> bool:
        """Whether thresholds are measured of tensors that other lines make."""
        return bool(self.trims) and any(term.made is not None for term in taken(self.unplanned))

    @property
    def full(self) -> Depths:
        """The depths of the exact merge."""
        return np.where(self.equal, np.uint8(Depth.EQUAL), np.uint8(Depth.EXACT))

    @property
    def must_read(self) -> npt.NDArray[np.bool_]:
        """Blocks that are not for sale: nothing is known of what they change."""
        unknown = np.zeros_like(self.equal)
        for row, view in enumerate(self.views):
            unknown[row] = True if view is None else np.isnan(view.energies)
        forced: npt.NDArray[np.bool_] = unknown & ~self.equal
        return forced

    def with_estimates(self) -> "Draft":
        """The same with statistics that follow from profiles, near enough for a budget."""
        unchanged = [bool(blocks.all()) for blocks in self.equal]
        estimates = {
            need: value
            for need in self.late
            if (value := estimated(need, self.views, unchanged, sum(self.elements))) is not None
        }
        if not estimates:
            return self
        late = tuple(need for need in self.late if need not in estimates)
        return replace(self, values={**self.values, **estimates}, late=late)

    def supposed_values(self) -> Values:
        """What is known of the method's needs, and guesses at the rest."""
        return supposed(self.measured, self.values, len(self.views))

    def supposed_scalars(self) -> Scalars:
        """Scalars good enough to choose depths by."""
        return self.method.resolve(self.settings, self.supposed_values())

    def gains(self) -> list[ExpertGains | None]:
        """What every depth of every input's blocks is worth to the line's own tensor."""
        return tensor_gains(self.views, self.supposed_scalars(), self.elements)

    def scalars(self, values: Values, depths: Depths) -> Scalars:
        """The final scalars."""
        coarse = [bool((depth == Depth.COARSE).any()) for depth in depths]
        return resolve(self.method, self.settings, values, self.views, coarse)

    def plan(self, depths: Depths, scalars: Scalars) -> LinePlan:
        """Its line of the plan."""
        numbers, input_numbers = stored_numbers(scalars)
        return structs.replace(
            self.unplanned,
            depths=tuple(depth.tobytes() for depth in depths),
            numbers=numbers,
            input_numbers=input_numbers,
        )


def draft_line(
    line: Line, plan: LinePlan, tensors: Tensors, profiles: ProfileTable
) -> Draft | LinePlan:
    """What is known of one line; where it is a stored tensor as it stands, that is its plan.

    plan  all of its plan but depths and numbers (`prepared`)
    """
    if plan.copied is not None:
        return plan
    like = tensors[plan.like]
    output_block_bytes(like, dtype_of(plan.dtype))
    grid = Grid.of(like)
    needs = line.method.needs(line.settings)
    equal = equal_blocks(plan, tensors)
    views = profiles.views(plan, grid.blocks)
    known = known_needs(needs, views, [bool(is_equal.all()) for is_equal in equal], grid.elements)
    return Draft(
        unplanned=plan,
        method=line.method,
        settings=line.settings,
        values=known,
        trims=tuple(need for need in needs if need.kind in COUNTED and need not in known),
        late=tuple(one for one in needs if one.kind not in COUNTED),
        views=views,
        equal=equal,
        elements=tuple(end - start for start, end in map(grid.span, range(grid.blocks))),
    )


def unplanned(draft: Draft | LinePlan) -> LinePlan:
    """A line's plan, as far as it is known."""
    return draft if isinstance(draft, LinePlan) else draft.unplanned
