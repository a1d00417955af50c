"""How the lines of a plan are made: inputs found and compared with what the plan says of them."""

from collections.abc import Sequence
from math import prod

from msgspec import Struct, field

from mergepipe.dtypes import DType, dtype_of
from mergepipe.engine.estimates import Columns
from mergepipe.engine.grids import InputTensor
from mergepipe.engine.memo import Head, memo_head
from mergepipe.engine.steps import AGAIN, KeptTensor, LaidInput, MergedTensor
from mergepipe.engine.work import Factor, LineTask, Product
from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId
from mergepipe.methods import Method, find, tensor_key
from mergepipe.names import quoted
from mergepipe.objects.depths import Depth
from mergepipe.objects.grid import Grid
from mergepipe.objects.merging import LinePlan, LowRank, PlanInput, TermKind
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.plans.numbers import scalars_of
from mergepipe.plans.trees import Tree
from mergepipe.plans.units import fits, output_block_bytes, unit_blocks, widest


def method_of(line: LinePlan) -> Method:
    """The method of a line. Raises MergeInputError if this release's has other bytes."""
    method = find(line.method)
    if method.version != line.version:
        raise MergeInputError(
            f"the plan was made for version {line.version} of {method.name}; "
            f"this is version {method.version}",
            AGAIN,
        )
    return method


class Laying(Struct):
    """Lays lines of one plan; what a line takes in is laid with it."""

    lines: Sequence[LinePlan]
    seed: int
    objects: ObjectStore
    columns: Columns
    _heads: dict[int, Head] = field(default_factory=dict)

    def lay(self, number: int) -> MergedTensor | KeptTensor:
        """How line `number` is made.

        Raises MergeInputError naming tensor and input where plan and inputs do not fit.
        """
        line = self.lines[number]
        if line.copied is not None:
            _Line(line, self.objects).stored(line.copied, "what is copied")
            return KeptTensor(line.copied)
        tensors: dict[int, MergedTensor] = {}
        under = Tree.of(number, self.lines).lines
        like = self.objects.tensor(line.like)
        unit = unit_blocks(widest(*(method_of(self.lines[one]).scope for one in under)), like)
        for one in (*under[1:], number):  # each after those that it takes in
            tensors[one] = self._merged(one, tensors, unit if one == number else 1)
        return tensors[number]

    def _merged(self, number: int, made: dict[int, MergedTensor], unit: int) -> MergedTensor:
        line = self.lines[number]
        method = method_of(line)
        here = _Line(line, self.objects)
        inputs = tuple(self._input(line, here, place, made) for place in range(len(line.inputs)))
        here.check_depths(inputs)
        base = None
        if line.base is not None:
            base = here.laid(line.base, "the base", made)
            if base.source is None:
                raise here.error("the base is not there", AGAIN)
        dtype = dtype_of(line.dtype)
        like = here.like
        task = LineTask(
            number=number,
            name=line.name,
            method=method.name,
            scalars=scalars_of(line),
            dtype=dtype,
            seed=self.seed,
            tensor_key=tensor_key(line.name),
            row_length=like.shape[-1] if like.shape else 1,
            slab_length=prod(like.shape[1:]),
        )
        self._heads[number] = memo_head(method, task)
        return MergedTensor(
            task=task,
            shape=like.shape,
            block_bytes=output_block_bytes(like, dtype),
            grid=Grid.of(like),
            method=method,
            base=base,
            inputs=inputs,
            depths=line.depths,
            unit=unit,
            heads=self._heads,
        )

    def _input(
        self, line: LinePlan, here: "_Line", place: int, made: dict[int, MergedTensor]
    ) -> LaidInput:
        one = line.inputs[place]
        columns = None
        if line.base is not None and one.stored is not None and line.base.stored is not None:
            columns = self.columns.get((one.stored, line.base.stored))
        laid = here.laid(one, f"input {place}", made)
        return LaidInput(laid.source, laid.kind, laid.product, columns)


class _Line:
    """One line, and the tensors that it names."""

    def __init__(self, line: LinePlan, objects: ObjectStore) -> None:
        self._line = line
        self._objects = objects
        self.like = objects.tensor(line.like)

    def error(self, what: str, hint: str = "") -> MergeInputError:
        """An error about this line."""
        return MergeInputError(f"tensor {quoted(self._line.name)}: {what}", hint)

    def stored(self, identity: ObjectId, who: str) -> Tensor:
        """A stored tensor of the line's shape."""
        tensor = self._objects.tensor(identity)
        if tensor.shape != self.like.shape:
            raise self.error(f"{who} has shape {list(tensor.shape)}, not {list(self.like.shape)}")
        return tensor

    def laid(self, one: PlanInput, who: str, made: dict[int, MergedTensor]) -> LaidInput:
        """An input, or the base."""
        product = None if one.factors is None else self._product(one.factors, who)
        source: InputTensor | MergedTensor | None = None
        if one.made is not None:
            source = made[one.made]
            if source.shape != self.like.shape:
                raise self.error(f"{who} has shape {list(source.shape)}, another one")
        elif one.stored is not None:
            source = InputTensor.of(self.stored(one.stored, who))
        return LaidInput(source, one.kind, product)

    def check_depths(self, inputs: tuple[LaidInput, ...]) -> None:
        """Raise MergeInputError unless the line's depths fit its inputs."""
        line, grid = self._line, Grid.of(self.like)
        if not len(inputs) == len(line.input_numbers) == len(line.depths):
            raise self.error("the plan does not name every input", AGAIN)
        for place, (one, depth) in enumerate(zip(inputs, line.depths, strict=True)):
            depths = set(depth)
            if len(depth) != grid.blocks or max(depths, default=0) > Depth.EQUAL:
                raise self.error(f"the depths of input {place} do not fit its blocks", AGAIN)
            reads = bool(depths & {Depth.COARSE, Depth.EXACT})
            if one.source is None and one.product is None and reads:
                raise self.error(f"input {place} does not have it", AGAIN)
            if one.stored is None and depths & {Depth.COARSE}:
                raise self.error(f"input {place} cannot be read coarsely", AGAIN)
            cut = one.stored is not None and one.stored.grid != grid
            if cut and reads and depths != {Depth.EXACT}:
                raise self.error(
                    f"input {place} is cut into other blocks than the output",
                    "such a tensor is read exactly as a whole or not at all",
                )
            if one.kind is TermKind.LOW_RANK and one.source is not None:
                raise self.error(f"input {place} is of low rank, and has weights", AGAIN)

    def _product(self, factors: LowRank, who: str) -> Product:
        up, down = (self._objects.tensor(one) for one in (factors.up, factors.down))
        if not fits(up, down, self.like):
            raise self.error(f"the factors of {who} do not make its shape", AGAIN)
        return Product(_factor(up), _factor(down), factors.scale, factors.transposed)


def _factor(tensor: Tensor) -> Factor:
    dtype: DType = dtype_of(tensor.dtype)
    return Factor(tuple(tensor.block_ids()), dtype, tensor.shape[0], prod(tensor.shape[1:]))
