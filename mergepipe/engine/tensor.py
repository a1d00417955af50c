"""One tensor of a snapshot as a torch tensor, read when asked for."""

from typing import TYPE_CHECKING

from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader

if TYPE_CHECKING:
    import torch

_READ_AT_ONCE = 8
_TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
    "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "C64": "complex64", "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2",
}  # fmt: skip


def read_tensor(
    snapshot: ObjectId, name: str, objects: ObjectStore, reader: BlockReader
) -> "torch.Tensor":
    """The tensor called `name`, in its own dtype and shape, on the CPU.

    F4 comes as torch has it: two to an element of the last dimension. Raises MergepipeError if the
    snapshot has no such tensor or torch no such dtype; MissingObject, Corruption.
    """
    tensors = {entry.name: entry.tensor for _, entry in objects.snapshot(snapshot).named_tensors()}
    if name not in tensors:
        raise MergepipeError(
            f"no tensor is called {quoted(name)}", "mp show REV --tensors lists them"
        )
    return as_torch(objects.tensor(tensors[name]), quoted(name), reader)


def as_torch(tensor: Tensor, what: str, reader: BlockReader) -> "torch.Tensor":
    """A stored tensor as torch's."""
    import torch

    kind = getattr(torch, _TORCH.get(tensor.dtype, ""), None)
    if kind is None:
        raise MergepipeError(
            f"this torch has no dtype for {tensor.dtype}, which {what} has",
            "mp checkout --tensor writes it to a safetensors file",
        )
    size = tensor_bytes(tensor)
    data = torch.empty(size, dtype=torch.uint8)
    view = data.numpy().data
    at = 0
    blocks = tensor.block_ids()
    for first in range(0, len(blocks), _READ_AT_ONCE):
        for raw in reader.read(blocks[first : first + _READ_AT_ONCE]):
            view[at : at + len(raw)] = raw
            at += len(raw)
    shape = tensor.shape
    if tensor.dtype == "F4" and shape:
        shape = (*shape[:-1], shape[-1] // 2)
    if not size:
        return torch.empty(shape, dtype=kind)
    return data.view(kind).reshape(shape)
