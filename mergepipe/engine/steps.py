"""From a plan's tensor to steps: one output block each, or a block that is known without work."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mergepipe.dtypes import dtype_of
from mergepipe.engine.estimates import CoarseColumns
from mergepipe.engine.grids import InputTensor
from mergepipe.engine.memo import memo_head, memo_key
from mergepipe.engine.work import UNCHANGED, Input, Piece, Step, TensorTask, Weights
from mergepipe.errors import MergeInputError
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import ExpertScalars, Method, Scalars, find, tensor_key
from mergepipe.names import quoted
from mergepipe.objects.merging import Depth, Plan, PlanExpert, TensorPlan, TermKind
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.planner.steps import Grid, output_block_bytes

_AGAIN = "make the plan again"
# What coarse readings take from profiles, by expert, its tensor and the base's.
Columns: TypeAlias = Mapping[tuple[int, ObjectId, ObjectId], CoarseColumns]


@dataclass(frozen=True, slots=True)
class Known:
    """An output block that needs no work: the base's."""

    index: int
    block: BlockId


@dataclass(frozen=True, slots=True)
class KeptTensor:
    """An output tensor that is one of the inputs', as it stands."""

    tensor: ObjectId


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """An output tensor that is made block by block."""

    task: TensorTask
    shape: tuple[int, ...]
    block_bytes: int
    grid: Grid
    method: Method
    base: InputTensor | None
    experts: tuple[InputTensor | None, ...]
    depths: tuple[bytes, ...]
    columns: tuple[CoarseColumns | None, ...]
    memo_head: bytes

    @property
    def streamed(self) -> bool:
        """Whether it is made in one go, because an input's block serves several of its own."""
        inputs = (self.base, *self.experts)
        return any(one is not None and one.grid != self.grid for one in inputs)

    def steps(self) -> Iterator[Step | Known]:
        """What makes each block, in order."""
        return map(self.step, range(self.grid.blocks))

    def step(self, index: int) -> Step | Known:
        """What makes block `index`."""
        start, end = self.grid.span(index)
        base = () if self.base is None else self.base.pieces(start, end)
        noop = self.method.omitted_is_noop and self.task.base == self.task.dtype
        kept = noop and len(base) == 1 and base[0].whole
        inputs = tuple(
            self._input(expert, index, (start, end), base) for expert in range(len(self.experts))
        )
        # Left out, equal by the plan, or planned exactly and equal all the same.
        if kept and all(one is UNCHANGED for one in inputs):
            return Known(index, base[0].block)
        return self._step(index, base, inputs, needs_base=self.method.needs_base)

    def reading(self, index: int, experts: Collection[int], *, deltas: bool) -> Step:
        """What it takes to look at block `index` of these experts (the others are left out).

        `deltas`: at their differences from the base, which is then read too.
        """
        start, end = self.grid.span(index)
        base = () if self.base is None else self.base.pieces(start, end)
        inputs = tuple(
            self._input(expert, index, (start, end), base) if expert in experts else UNCHANGED
            for expert in range(len(self.experts))
        )
        return self._step(index, base, inputs, needs_base=deltas)

    def _step(
        self,
        index: int,
        base: tuple[Piece, ...],
        inputs: tuple[Input, ...],
        *,
        needs_base: bool,
    ) -> Step:
        start, end = self.grid.span(index)
        full = all(isinstance(one, Weights) for one in inputs)
        alone = full and not needs_base and set(self.task.kinds) == {TermKind.FULL}
        if not base and not alone:
            raise MergeInputError(
                f"tensor {quoted(self.task.name)}: something is left out, and there is no base"
            )
        used = Weights(base) if base and not alone else None
        key = memo_key(self.memo_head, self.task, start, used, inputs)
        under = tuple(piece.block for piece in base)
        return Step(self.task, index, start, end - start, used, inputs, under, key)

    def _input(
        self, expert: int, index: int, span: tuple[int, int], base: tuple[Piece, ...]
    ) -> Input:
        tensor, depth = self.experts[expert], self.depths[expert][index]
        if tensor is None or depth in (Depth.OMITTED, Depth.EQUAL):
            return UNCHANGED
        if depth == Depth.COARSE:
            columns = self.columns[expert]
            if columns is None or len(base) != 1 or not base[0].whole:
                raise MergeInputError(
                    f"tensor {quoted(self.task.name)}, expert {expert}: nothing to read coarsely",
                    _AGAIN,
                )
            return columns.estimate(index, tensor.blocks[index], base[0].block)
        pieces = tensor.pieces(*span)
        full = self.task.kinds[expert] is TermKind.FULL
        same = full and pieces == base and self.base is not None and tensor.dtype == self.base.dtype
        return UNCHANGED if same else Weights(pieces)


def method_of(plan: Plan) -> Method:
    """The method of a plan. Raises MergeInputError if this release's has other bytes."""
    method = find(plan.method)
    if method.version != plan.version:
        raise MergeInputError(
            f"the plan was made for version {plan.version} of {method.name}; "
            f"this is version {method.version}",
            _AGAIN,
        )
    return method


@dataclass(frozen=True, slots=True)
class TensorLaying:
    """How one tensor of a plan is made. `inputs`, `method` and `seed` are the plan's."""

    tensor: TensorPlan
    inputs: Sequence[PlanExpert]
    method: Method
    seed: int
    objects: ObjectStore

    def lay(self, number: int, layout: ObjectId, columns: Columns) -> MergedTensor | KeptTensor:
        """Tensor `number` of the plan; `layout` is the layout's tensor of that place.

        Raises MergeInputError naming tensor and expert where plan and inputs do not fit.
        """
        like = self.objects.tensor(layout)
        if not self.tensor.depths:
            kept = self.tensor.base or layout
            self._stored(kept, like, "the base")
            return KeptTensor(kept)
        kinds = tuple(expert.kind for expert in self.inputs)
        if TermKind.LOW_RANK in kinds or any(self.tensor.factors):
            raise MergeInputError(f"{self._what()}: low-rank inputs cannot be merged yet")
        grid = Grid.of(like)
        base = None if self.tensor.base is None else self._input(self.tensor.base, like, "the base")
        experts = tuple(
            None if identity is None else self._input(identity, like, f"expert {index}")
            for index, identity in enumerate(self.tensor.experts)
        )
        self._check_depths(grid, experts)
        base_id = self.tensor.base
        found = tuple(
            None if own is None or base_id is None else columns.get((expert, own, base_id))
            for expert, own in enumerate(self.tensor.experts)
        )
        dtype = dtype_of(self.tensor.dtype)
        task = TensorTask(
            number,
            self.tensor.name,
            self.method.name,
            self._scalars(),
            dtype,
            None if base is None else base.dtype,
            tuple(None if expert is None else expert.dtype for expert in experts),
            kinds,
            self.seed,
            tensor_key(self.tensor.name),
            like.shape[-1] if like.shape else 1,
        )
        return MergedTensor(
            task,
            like.shape,
            output_block_bytes(like, dtype),
            grid,
            self.method,
            base,
            experts,
            self.tensor.depths,
            found,
            memo_head(self.method, task),
        )

    def _input(self, identity: ObjectId, like: Tensor, who: str) -> InputTensor:
        return InputTensor.of(self._stored(identity, like, who))

    def _stored(self, identity: ObjectId, like: Tensor, who: str) -> Tensor:
        found = self.objects.tensor(identity)
        if found.shape != like.shape:
            raise MergeInputError(
                f"{self._what()}: {who} has shape {list(found.shape)}, not {list(like.shape)}"
            )
        return found

    def _check_depths(self, grid: Grid, experts: tuple[InputTensor | None, ...]) -> None:
        count = len(self.inputs)
        if not len(experts) == len(self.tensor.scalars) == len(self.tensor.depths) == count:
            raise MergeInputError(f"{self._what()}: the plan does not name every expert", _AGAIN)
        for index, (expert, own) in enumerate(zip(experts, self.tensor.depths, strict=True)):
            depths = set(own)
            if len(own) != grid.blocks or max(depths, default=0) > Depth.EQUAL:
                raise MergeInputError(
                    f"{self._what()}: the depths of expert {index} do not fit its blocks", _AGAIN
                )
            if expert is None and depths & {Depth.COARSE, Depth.EXACT}:
                raise MergeInputError(f"{self._what()}: expert {index} does not have it", _AGAIN)
            if (
                expert is not None
                and expert.grid != grid
                and (Depth.COARSE in depths or (Depth.EXACT in depths and len(depths) > 1))
            ):
                raise MergeInputError(
                    f"{self._what()}: expert {index} is cut into other blocks than the output",
                    "such a tensor is read exactly as a whole or not at all",
                )

    def _scalars(self) -> Scalars:
        return Scalars(
            tuple(
                ExpertScalars(own.weight, own.threshold, own.coarse_scale, own.density, own.rescale)
                for own in self.tensor.scalars
            ),
            self.tensor.elect,
            self.tensor.normalize,
            self.tensor.scale,
        )

    def _what(self) -> str:
        return f"tensor {quoted(self.tensor.name)}"
