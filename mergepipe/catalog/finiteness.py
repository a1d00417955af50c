"""Values that are no finite number: counted once per model, remembered by snapshot.

A snapshot without an entry was not counted yet: it came from a remote, or the index was made anew.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from mergepipe.dtypes import dtype_of
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.objects.merging import LinePlan, Plan, PlanInput
from mergepipe.objects.records import Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.reprs import brief

_COUNT_BYTES = 8
_ENTRY_BYTES = ID_BYTES + _COUNT_BYTES
_BATCH_BLOCKS = 16


@brief
class NonFinite(Struct, frozen=True):
    """A tensor of which `count` of `elements` values are infinite or NaN."""

    file: str
    tensor: str
    count: int
    elements: int


@brief
class NonFiniteInput(Struct, frozen=True):
    """Such a tensor of a merge's input; `model` is a place among the plan's models."""

    model: int
    values: NonFinite


class Finiteness:
    """What is known of the values of one store's models."""

    def __init__(self, storage: Storage, objects: ObjectStore) -> None:
        self._storage = storage
        self._objects = objects

    def find(self, snapshot: ObjectId) -> dict[ObjectId, int] | None:
        """Counts by tensor, of tensors with values that are not finite; None: not counted yet."""
        with self._storage.view() as view:
            value = view.cached(_key(snapshot))
        if value is None or len(value) % _ENTRY_BYTES:
            return None
        return {
            ObjectId(value[at : at + ID_BYTES]): int.from_bytes(
                value[at + ID_BYTES : at + _ENTRY_BYTES], "little"
            )
            for at in range(0, len(value), _ENTRY_BYTES)
        }

    def remember(self, snapshot: ObjectId, counts: Mapping[ObjectId, int]) -> None:
        """Let `find` know what was counted, of all tensors of a snapshot; zeros go without."""
        value = b"".join(
            tensor + count.to_bytes(_COUNT_BYTES, "little")
            for tensor, count in sorted(counts.items())
            if count
        )
        self._storage.index.cache([(_key(snapshot), value)])

    def ensure(self, snapshot: ObjectId, progress: Progress = SILENT) -> dict[ObjectId, int]:
        """Counts by tensor, made by reading the model where they are not known.

        Raises MissingObject, Corruption.
        """
        known = self.find(snapshot)
        if known is not None:
            return known
        from mergepipe.values import count_nonfinite

        reader = BlockReader(self._storage)
        content = self._objects.snapshot(snapshot)
        tensors = {
            entry.tensor: self._objects.tensor(entry.tensor) for _, entry in content.named_tensors()
        }
        blocks = sum(len(tensor.block_ids()) for tensor in tensors.values())
        progress.start("check", blocks)
        counts: dict[ObjectId, int] = {}
        for identity, tensor in tensors.items():
            wanted = tensor.block_ids()
            counts[identity] = 0
            for at in range(0, len(wanted), _BATCH_BLOCKS):
                batch = wanted[at : at + _BATCH_BLOCKS]
                for raw in reader.read(batch):
                    counts[identity] += count_nonfinite(dtype_of(tensor.dtype), raw)
                progress.advance(len(batch))
        self.remember(snapshot, counts)
        return {identity: count for identity, count in counts.items() if count}

    def named(self, snapshot: ObjectId) -> tuple[NonFinite, ...] | None:
        """What is known of a snapshot, with its names, in its order; None: not counted yet."""
        counts = self.find(snapshot)
        if not counts:
            return None if counts is None else ()
        return tuple(nonfinite_tensors(self._objects.snapshot(snapshot), counts, self._objects))

    def of_plan(self, plan: Plan) -> tuple[NonFiniteInput, ...]:
        """Known ones among the tensors that a plan takes in, at whatever depth."""
        inputs: list[NonFiniteInput] = []
        taken: dict[int, set[ObjectId]] = {}
        factors: set[ObjectId] = set()  # of an adapter beside the model that it changes
        for _, term in taken_in(plan):
            tensors = taken.setdefault(term.model, set())
            if term.stored is not None:
                tensors.add(term.stored)
            if term.factors is not None:
                factors.update((term.factors.up, term.factors.down))
        for model, snapshot_id in enumerate(plan.models):
            counts = self.find(snapshot_id)
            if not counts:
                continue
            tensors = taken.get(model, set()) | factors
            used = {tensor: count for tensor, count in counts.items() if tensor in tensors}
            snapshot = self._objects.snapshot(snapshot_id) if used else Snapshot(())
            inputs += [
                NonFiniteInput(model, values)
                for values in nonfinite_tensors(snapshot, used, self._objects)
            ]
        return tuple(inputs)

    def unknown(self, models: Iterable[ObjectId]) -> frozenset[ObjectId]:
        """Those of some snapshots that were not counted yet."""
        return frozenset(model for model in models if self.find(model) is None)


def taken_in(plan: Plan) -> Iterator[tuple[LinePlan, PlanInput]]:
    """Every stored input of a plan's lines, bases among them, with its line."""
    for line in plan.lines:
        for term in (line.base, *line.inputs):
            if term is not None and term.model >= 0:
                yield line, term


def nonfinite_tensors(
    snapshot: Snapshot, counts: Mapping[ObjectId, int], objects: ObjectStore
) -> Iterator[NonFinite]:
    """Counts by tensor with the names that a snapshot has for them, in its order."""
    for file, entry in snapshot.named_tensors():
        if count := counts.get(entry.tensor):
            elements = _elements(objects.tensor(entry.tensor))
            yield NonFinite(file.path, entry.name, count, elements)


def _elements(tensor: Tensor) -> int:
    elements = 1
    for size in tensor.shape:
        elements *= size
    return elements


def _key(snapshot: ObjectId) -> bytes:
    return b"n/" + snapshot
