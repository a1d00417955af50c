"""Which blocks make up a file, and where: the plan of an export."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from mergepipe.dtypes import dtype_of
from mergepipe.errors import Corruption, MergepipeError
from mergepipe.formats.safetensors import build_header
from mergepipe.ids import BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.grid import spans, tensor_bytes
from mergepipe.objects.records import FileEntry, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore


class Part(Struct, frozen=True):
    """One block and the bytes of the file it fills."""

    block: BlockId
    offset: int
    length: int


class FilePlan(Struct, frozen=True):
    """A file to be written: literal `head` bytes first, then its parts. Sizes in bytes."""

    path: str
    executable: bool
    size: int
    head: bytes
    parts: tuple[Part, ...]


def plan_file(entry: FileEntry, objects: ObjectStore) -> FilePlan:
    """The parts of a file of a snapshot. Raises Corruption if they do not add up to its size."""
    parts: list[Part] = []
    end = 0
    for identity in entry.tensor_ids():
        tensor = objects.tensor(identity)
        placed = list(_place(tensor, end, identity))
        parts += placed
        end += tensor_bytes(tensor)
    if end != entry.size:
        raise Corruption(
            f"{quoted(entry.path)}: its tensors take {end} bytes, its size is {entry.size}"
        )
    return FilePlan(entry.path, entry.executable, entry.size, b"", tuple(parts))


def plan_selection(
    snapshot: Snapshot, names: Sequence[str], objects: ObjectStore, path: str
) -> FilePlan:
    """One new safetensors file with the named tensors of a snapshot, in the order asked for.

    Raises MergepipeError naming the first tensor that is not there.
    """
    tensors = {entry.name: entry.tensor for _, entry in snapshot.named_tensors()}
    chosen: list[tuple[str, Tensor, ObjectId]] = []
    for name in dict.fromkeys(names):
        if name not in tensors:
            raise MergepipeError(
                f"no tensor is called {quoted(name)}", "mp show REV --tensors lists them"
            )
        chosen.append((name, objects.tensor(tensors[name]), tensors[name]))
    head = build_header([(name, dtype_of(t.dtype), t.shape) for name, t, _ in chosen], {})
    parts: list[Part] = []
    end = len(head)
    for _, tensor, identity in chosen:
        parts += _place(tensor, end, identity)
        end += tensor_bytes(tensor)
    return FilePlan(path, False, end, head, tuple(parts))


def _place(tensor: Tensor, offset: int, identity: ObjectId) -> Iterator[Part]:
    """The parts of a tensor that begins at `offset` of a file."""
    blocks = tensor.block_ids()
    size = tensor_bytes(tensor)
    if tensor.block_bytes <= 0 or len(blocks) != -(-size // tensor.block_bytes):
        raise Corruption(f"tensor {identity.hex()[:12]} does not have the blocks its shape needs")
    for block, (begin, end) in zip(blocks, spans(size, tensor.block_bytes), strict=True):
        yield Part(block, offset + begin, end - begin)
