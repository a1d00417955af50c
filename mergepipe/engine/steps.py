"""From a plan's tensor to steps: one output block each, or a block that is known without work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mergepipe.dtypes import dtype_of
from mergepipe.engine.estimates import CoarseColumns
from mergepipe.engine.grids import InputTensor
from mergepipe.engine.memo import memo_head, memo_key
from mergepipe.engine.work import UNCHANGED, Input, Piece, Step, TensorTask, Weights
from mergepipe.errors import MergeInputError
from mergepipe.ids import BlockId, ObjectId
from mergepipe.methods import ExpertScalars, Method, Scalars, find, tensor_key
from mergepipe.names import quoted
from mergepipe.objects.merging import Depth, Plan, TensorPlan, TermKind
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.planner.steps import Grid, keeps_base, output_block_bytes

_AGAIN = "make the plan again"
# Per expert and tensor name, what coarse readings take from profiles.
Columns = Mapping[tuple[int, str], CoarseColumns]


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
        depths = tuple(own[index] for own in self.depths)
        cast = self.task.base != self.task.dtype
        noop = self.method.omitted_is_noop
        kept = len(base) == 1 and base[0].whole
        if kept and keeps_base(depths, omitted_is_noop=noop, cast=cast):
            return Known(index, base[0].block)
        inputs = tuple(
            self._input(expert, index, (start, end), base) for expert in range(len(depths))
        )
        changed = any(one is not UNCHANGED for one in inputs)
        if kept and noop and not cast and not changed:
            return Known(index, base[0].block)  # planned exactly, and equal to the base
        alone = not self.method.needs_base and all(isinstance(one, Weights) for one in inputs)
        alone = alone and TermKind.FULL in self.task.kinds and len(set(self.task.kinds)) == 1
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


def lay_steps(
    plan: Plan,
    number: int,
    layout: ObjectId,
    columns: Columns,
    objects: ObjectStore,
) -> MergedTensor | KeptTensor:
    """How tensor `number` of a plan is made. `layout` is the layout's tensor of that place.

    Raises MergeInputError naming tensor and expert where plan and inputs do not fit.
    """
    method = find(plan.method)
    if method.version != plan.version:
        raise MergeInputError(
            f"the plan was made for version {plan.version} of {method.name}; "
            f"this is version {method.version}",
            _AGAIN,
        )
    return _Laying(plan, plan.tensors[number], method, objects).lay(number, layout, columns)


@dataclass(frozen=True, slots=True)
class _Laying:
    plan: Plan
    tensor: TensorPlan
    method: Method
    objects: ObjectStore

    def lay(self, number: int, layout: ObjectId, columns: Columns) -> MergedTensor | KeptTensor:
        like = self.objects.tensor(layout)
        if not self.tensor.depths:
            kept = self.tensor.base or layout
            self._stored(kept, like, "the base")
            return KeptTensor(kept)
        kinds = tuple(expert.kind for expert in self.plan.experts)
        if TermKind.LOW_RANK in kinds or any(self.tensor.factors):
            raise MergeInputError(f"{self._what()}: low-rank inputs cannot be merged yet")
        grid = Grid.of(like)
        base = None if self.tensor.base is None else self._input(self.tensor.base, like, "the base")
        experts = tuple(
            None if identity is None else self._input(identity, like, f"expert {index}")
            for index, identity in enumerate(self.tensor.experts)
        )
        self._check_depths(grid, experts)
        found = tuple(columns.get((one, self.tensor.name)) for one in range(len(experts)))
        self._check_columns(found)
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
            self.plan.seed,
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
        count = len(self.plan.experts)
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

    def _check_columns(self, columns: tuple[CoarseColumns | None, ...]) -> None:
        for index, own in enumerate(columns):
            pair = (self.tensor.experts[index], self.tensor.base)
            if own is not None and (own.tensor, own.base) != pair:
                raise MergeInputError(
                    f"{self._what()}: the profile of expert {index} is about other tensors", _AGAIN
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
