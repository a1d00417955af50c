"""The manifest of a merge: what follows from its plan and output alone (docs/format-merge.md)."""

from collections.abc import Sequence

from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Depth, ExpertUse, Manifest, Plan, TensorManifest, TensorPlan
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore


def write_manifest(
    plan: Plan,
    output: ObjectId,
    layout: Sequence[ObjectId],
    tensors: Sequence[ObjectId],
    objects: ObjectStore,
) -> Manifest:
    """The manifest of a plan whose tensors became `tensors`; `layout`: the layout's, in that order.

    A block planned exactly is one used exactly, whether it was read or its result remembered.
    """
    return Manifest(
        object_id(encode(plan)),
        plan.method,
        plan.seed,
        plan.layout,
        plan.base,
        tuple(expert.snapshot for expert in plan.experts),
        output,
        tuple(
            TensorManifest(one.name, made, _uses(one, objects.tensor(like), objects))
            for one, like, made in zip(plan.tensors, layout, tensors, strict=True)
        ),
    )


def _uses(plan: TensorPlan, like: Tensor, objects: ObjectStore) -> tuple[ExpertUse, ...]:
    return tuple(
        _use(plan, index, identity, like, objects) for index, identity in enumerate(plan.experts)
    )


def _use(
    plan: TensorPlan, index: int, identity: ObjectId | None, like: Tensor, objects: ObjectStore
) -> ExpertUse:
    count = len(like.block_ids())
    if plan.depths:
        depths = plan.depths[index]
    else:  # the base's tensor was kept
        depths = bytes((Depth.EQUAL if identity == plan.base else Depth.OMITTED,)) * count
    if identity is None:
        return ExpertUse(0, 0, count, 0, 0)
    exact, coarse, omitted, equal = (
        depths.count(depth) for depth in (Depth.EXACT, Depth.COARSE, Depth.OMITTED, Depth.EQUAL)
    )
    dtype = dtype_of(like.dtype)
    total = byte_length(dtype, like.shape)
    # Raw bytes of the expert over the output's elements; all blocks are full but the last.
    own = dtype_of(objects.tensor(identity).dtype)
    used = (count - omitted) * like.block_bytes
    if count and depths[-1] != Depth.OMITTED:
        used -= count * like.block_bytes - total
    return ExpertUse(exact, coarse, omitted, equal, used * own.bits // dtype.bits)
