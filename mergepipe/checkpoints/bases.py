"""What a new model leans on: the tensors of a base that its own pair up with, and which base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mergepipe.checkpoints.assembly import tensor_bytes
from mergepipe.checkpoints.layout import Layout, SourceTensor
from mergepipe.formats.tree import open_stable
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import spans
from mergepipe.objects.records import Safetensors, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader

# A fine-tune differs from its base in about a quarter of its bits at most; strangers in 40%.
_SIMILAR_BITS = 0.33
_SAME_TENSORS = 0.5
_SAMPLED_BLOCKS = 4
_MOST_CANDIDATES = 32


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """A tensor of a base that one of the new model's pairs with, block for block."""

    id: ObjectId
    tensor: Tensor
    blocks: tuple[BlockId, ...]

    def block(self, index: int, length: int) -> BlockId | None:
        """The base block under block `index`, if it has `length` bytes."""
        size = tensor_bytes(self.tensor)
        begin = index * self.tensor.block_bytes
        if begin >= size or min(size, begin + self.tensor.block_bytes) - begin != length:
            return None
        return self.blocks[index]


class BaseTensors:
    """The named tensors of a base snapshot, read when asked for."""

    def __init__(self, snapshot: Snapshot, objects: ObjectStore) -> None:
        self._objects = objects
        self._by_place: dict[tuple[str, str], ObjectId] = {}
        self._by_name: dict[str, ObjectId] = {}
        for file in snapshot.files:
            if isinstance(file.content, Safetensors):
                for entry in file.content.tensors:
                    self._by_place[file.path, entry.name] = entry.tensor
                    self._by_name.setdefault(entry.name, entry.tensor)

    def pair(self, path: str, tensor: SourceTensor) -> BaseTensor | None:
        """The base's tensor under a new one: same name, dtype, row shape and grid."""
        if tensor.name is None:
            return None
        identity = self._by_place.get((path, tensor.name)) or self._by_name.get(tensor.name)
        if identity is None:
            return None
        found = self._objects.tensor(identity)
        if (
            found.dtype != tensor.dtype.name
            or len(found.shape) != len(tensor.shape)
            or found.shape[1:] != tensor.shape[1:]
            or found.block_bytes != tensor.block_bytes
        ):
            return None
        return BaseTensor(identity, found, tuple(found.block_ids()))


def pair_all(layout: Layout, base: BaseTensors) -> list[BaseTensor | None]:
    """The base tensor under each tensor of a layout, or None."""
    return [base.pair(layout.files[tensor.file].source.path, tensor) for tensor in layout.tensors]


def best_match(
    layout: Layout,
    candidates: Iterable[tuple[ObjectId, ObjectId]],
    objects: ObjectStore,
    reader: BlockReader,
) -> ObjectId | None:
    """Of (commit, snapshot) candidates, the commit whose snapshot the files are most like.

    Most like: half of the bytes are in tensors that pair up, and the fewest bits differ in a few
    sampled blocks. None if no candidate is like them at all.
    """
    best: tuple[float, ObjectId] | None = None
    for commit, snapshot in list(candidates)[:_MOST_CANDIDATES]:
        pairs = pair_all(layout, BaseTensors(objects.snapshot(snapshot), objects))
        share = _differing_bits(layout, pairs, reader)
        if share is not None and share < _SIMILAR_BITS and (best is None or share < best[0]):
            best = (share, commit)
    return None if best is None else best[1]


def _differing_bits(
    layout: Layout, pairs: Sequence[BaseTensor | None], reader: BlockReader
) -> float | None:
    """Share of bits that differ in sampled blocks; None if too few tensors pair up."""
    sizes = {
        number: tensor.end - tensor.start
        for number, tensor in enumerate(layout.tensors)
        if tensor.name is not None
    }
    paired = {number: size for number, size in sizes.items() if pairs[number] is not None}
    if not paired or sum(paired.values()) < _SAME_TENSORS * sum(sizes.values()):
        return None
    differing = total = 0
    for number in _spread(paired):
        pair, tensor = pairs[number], layout.tensors[number]
        assert pair is not None
        grid = list(spans(tensor.end - tensor.start, tensor.block_bytes))
        index = len(grid) // 2
        begin, end = grid[index]
        block = pair.block(index, end - begin)
        if block is None:
            continue
        ours = bytearray(end - begin)
        with open_stable(layout.files[tensor.file].source) as source:
            source.read_into(tensor.start + begin, memoryview(ours))
        theirs = reader.read([block])[0]
        bits = int.from_bytes(ours, "little") ^ int.from_bytes(theirs, "little")
        differing += bits.bit_count()
        total += 8 * len(ours)
    return differing / total if total else None


def _spread(paired: Mapping[int, int]) -> list[int]:
    """A few tensors, from the large ones, spread over the file."""
    large = sorted(paired, key=lambda number: (-paired[number], number))
    pool = sorted(large[: max(_SAMPLED_BLOCKS, len(large) // 4)])
    step = max(1, len(pool) // _SAMPLED_BLOCKS)
    return pool[::step][:_SAMPLED_BLOCKS]
