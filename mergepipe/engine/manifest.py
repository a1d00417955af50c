"""The manifest of a merge: what follows from its plan and output alone (docs/format-merge.md)."""

from collections.abc import Sequence

from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.depths import Depth
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.merging import InputUse, LinePlan, Manifest, Plan, TensorManifest
from mergepipe.objects.store import ObjectStore
from mergepipe.plans.trees import Tree


def write_manifest(
    plan: Plan, output: ObjectId, tensors: Sequence[ObjectId], objects: ObjectStore
) -> Manifest:
    """The manifest of a plan whose lines with a file became `tensors`.

    A block planned exactly is one used exactly, whether it was read or its result remembered.
    """
    numbers = [number for number, line in enumerate(plan.lines) if line.file is not None]
    return Manifest(
        plan=object_id(encode(plan)),
        method=plan.method,
        seed=plan.seed,
        layout=plan.layout,
        base=plan.base,
        models=plan.models,
        output=output,
        tensors=tuple(
            TensorManifest(plan.lines[number].name, tensor, _uses(plan, number, objects))
            for number, tensor in zip(numbers, tensors, strict=True)
        ),
    )


def _uses(plan: Plan, number: int, objects: ObjectStore) -> tuple[InputUse, ...]:
    line = plan.lines[number]
    if line.copied is not None:
        return tuple(_use(line, place, objects) for place in range(len(line.inputs)))
    return tuple(
        _use(plan.lines[leaf.line], leaf.place, objects)
        for leaf in Tree.of(number, plan.lines).leaves
    )


def _use(line: LinePlan, place: int, objects: ObjectStore) -> InputUse:
    one = line.inputs[place]
    like = objects.tensor(line.like)
    count = len(like.block_ids())
    if line.copied is not None:  # no input has changed it
        depths = bytes((Depth.EQUAL if one.source == line.copied else Depth.OMITTED,)) * count
    else:
        depths = line.depths[place]
    if one.source is None and one.factors is None:
        return InputUse(one.model, 0, 0, count, 0, 0)
    exact, coarse, omitted, equal = (
        depths.count(depth) for depth in (Depth.EXACT, Depth.COARSE, Depth.OMITTED, Depth.EQUAL)
    )
    used = 0
    if one.stored is not None:
        # Raw bytes of the input over the output's elements; all blocks are full but the last.
        dtype, own = dtype_of(like.dtype), dtype_of(objects.tensor(one.stored).dtype)
        used = (count - omitted) * like.block_bytes
        if count and depths[-1] != Depth.OMITTED:
            used -= count * like.block_bytes - byte_length(dtype, like.shape)
        used = used * own.bits // dtype.bits
    if one.factors is not None:
        for factor in (one.factors.up, one.factors.down):
            tensor = objects.tensor(factor)
            used += tensor_bytes(tensor)
    return InputUse(one.model, exact, coarse, omitted, equal, used)
