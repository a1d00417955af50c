"""Which tensors of two snapshots pair up: the same name, dtype, row shape and grid."""

from mergepipe.catalog.pairs import Pair
from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Snapshot, Tensor
from mergepipe.objects.store import ObjectStore


class BaseTensors:
    """The named tensors of a base snapshot, read when they are asked for."""

    def __init__(self, snapshot: Snapshot, objects: ObjectStore) -> None:
        self._objects = objects
        self._by_place: dict[tuple[str, str], ObjectId] = {}
        self._by_name: dict[str, ObjectId] = {}
        for path, name, identity in _named(snapshot):
            self._by_place[path, name] = identity
            self._by_name.setdefault(name, identity)

    def pair(
        self, path: str, name: str, dtype: str, shape: tuple[int, ...], block_bytes: int
    ) -> Pair | None:
        """The pair of a tensor `name` of file `path`, or None if the base has no fitting one."""
        identity = self._by_place.get((path, name)) or self._by_name.get(name)
        if identity is None:
            return None
        tensor = self._objects.tensor(identity)
        if (
            tensor.dtype != dtype
            or len(tensor.shape) != len(shape)
            or tensor.shape[1:] != shape[1:]
            or tensor.block_bytes != block_bytes
        ):
            return None
        kind = dtype_of(dtype)
        return Pair(
            name=name,
            dtype=kind,
            shape=shape,
            block_bytes=block_bytes,
            size_bytes=byte_length(kind, shape),
            base_id=identity,
            base=tensor,
            base_bytes=byte_length(kind, tensor.shape),
            base_blocks=tuple(tensor.block_ids()),
        )


def pair_snapshots(
    snapshot: Snapshot, base: Snapshot, objects: ObjectStore
) -> dict[ObjectId, tuple[Pair, Tensor]]:
    """Every tensor of `snapshot` that pairs and differs, by its id, with its object."""
    tensors = BaseTensors(base, objects)
    pairs: dict[ObjectId, tuple[Pair, Tensor]] = {}
    for path, name, identity in _named(snapshot):
        tensor = objects.tensor(identity)
        pair = tensors.pair(path, name, tensor.dtype, tensor.shape, tensor.block_bytes)
        if pair is not None and pair.base_id != identity:
            pairs.setdefault(identity, (pair, tensor))
    return pairs


def _named(snapshot: Snapshot) -> list[tuple[str, str, ObjectId]]:
    return [(file.path, entry.name, entry.tensor) for file, entry in snapshot.named_tensors()]
