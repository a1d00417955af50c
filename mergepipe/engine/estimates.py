"""What the coarse depth takes from profiles, and how packed trits are read and checked.

A coarse reading is a pure function of block, base block and profile: from the stored coarse layer,
or, where a block is not stored with one, from its exact bytes. Either way its packed trits must
have the BLAKE3 that the profile names.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.catalog.view import TensorView
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.engine.work import Estimate
from mergepipe.errors import Corruption, MergeInputError
from mergepipe.ids import ID_BYTES, BlockId, ObjectId, digest
from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import LinePlan, PlanProfile, Profile, TensorProfile
from mergepipe.objects.store import ObjectStore
from mergepipe.values import decode


class CoarseColumns(Struct, frozen=True):
    """Of one tensor's profile, the columns that coarse reading needs: 40 bytes per block."""

    magnitudes: npt.NDArray[np.float32]
    thresholds: npt.NDArray[np.float32]
    digests: bytes

    def estimate(self, index: int, block: BlockId, base: BlockId, dtype: DType) -> Estimate:
        """The coarse reading of block `index`."""
        return Estimate(
            block=block,
            base=base,
            magnitude=float(self.magnitudes[index]),
            threshold=float(self.thresholds[index]),
            digest=self.digests[index * ID_BYTES : (index + 1) * ID_BYTES],
            dtype=dtype,
        )


# By an input's tensor and the base's.
Columns: TypeAlias = Mapping[tuple[ObjectId, ObjectId], CoarseColumns]


def columns_of(
    lines: Sequence[LinePlan], profiles: Sequence[PlanProfile], objects: ObjectStore
) -> Columns:
    """What the coarse readings of lines need; one profile, with its counts, in memory at a time.

    Raises MergeInputError for a pair that no profile named has a coarse reading of.
    """
    wanted = {
        (one.stored, line.base.stored)
        for line in lines
        if line.base is not None and line.base.stored is not None
        for one, depth in zip(line.inputs, line.depths, strict=False)
        if one.stored is not None and Depth.COARSE in depth
    }
    columns: dict[tuple[ObjectId, ObjectId], CoarseColumns] = {}
    for profile in dict.fromkeys(one.profile for one in profiles):
        if len(columns) == len(wanted):
            break
        for tensor in objects.load(profile, Profile).tensors:
            if (tensor.tensor, tensor.base) in wanted and tensor.thresholds:
                columns[tensor.tensor, tensor.base] = _columns(tensor)
    for tensor_id, _ in sorted(wanted - columns.keys()):
        raise MergeInputError(
            f"no profile that the plan names has a coarse reading of tensor {tensor_id.hex()[:12]}",
            "this plan does not fit its profiles; make it again",
        )
    return columns


def _columns(tensor: TensorProfile) -> CoarseColumns:
    view = TensorView(tensor)
    return CoarseColumns(view.magnitudes, view.thresholds, tensor.coarse)


def trits_from_layers(
    estimate: Estimate, payloads: Sequence[Buffer], count: int, workspace: Workspace
) -> npt.NDArray[np.uint8]:
    """The trits of a chain of stored coarse layers, in order. Raises Corruption, CodecError."""
    from mergepipe.codecs.neighbours import in_order
    from mergepipe.codecs.successor import coarse_after

    packed = coarse_after(payloads, estimate.base, count, workspace)
    return in_order(_checked(estimate, packed), count, workspace)


def trits_from_weights(
    estimate: Estimate, raw: Buffer, base: Buffer, dtype: DType, workspace: Workspace
) -> npt.NDArray[np.uint8]:
    """The same from the weights themselves. Raises Corruption."""
    from mergepipe.codecs.neighbours import in_order
    from mergepipe.codecs.trits import CHUNK, pack_into, packed_length

    with np.errstate(invalid="ignore", over="ignore"):
        d = decode(dtype, raw).astype(np.float32) - decode(dtype, base).astype(np.float32)
    large = (np.abs(d) >= np.float32(estimate.threshold)) & np.isfinite(d) & (d != 0)
    packed = np.empty(packed_length(len(d)), np.uint8)
    trits = np.zeros(-(-len(packed) // (CHUNK // 5)) * CHUNK, np.uint8)
    trits[: len(d)] = np.where(large, np.where(d < 0, 1, 2), 0)
    pack_into(trits, packed)
    return in_order(_checked(estimate, packed), len(d), workspace)


def _checked(estimate: Estimate, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if digest(packed.tobytes()) != estimate.digest:
        raise Corruption(
            f"block {estimate.block.hex()}: its coarse layer is not the one in the profile",
            "mp fsck --read-data tells what else is damaged",
        )
    return packed
