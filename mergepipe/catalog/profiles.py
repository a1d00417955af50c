"""Profiles by pair of snapshots: found where they are known, made where they are not."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mergepipe.catalog.pairing import pair_snapshots
from mergepipe.executors.segments import SegmentResult
from mergepipe.executors.workforce import Workforce
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Profile
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress

if TYPE_CHECKING:  # numpy and numba: loaded only where a profile is made
    from mergepipe.catalog.builder import ProfileBuilder


class Profiles:
    """The profiles of one repository."""

    def __init__(
        self,
        storage: Storage,
        objects: ObjectStore,
        reader: BlockReader,
        workforce: Workforce | None = None,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._reader = reader
        self._workforce = workforce or Workforce()
        self.worker_bytes = 0
        """What workers read, that no reader here has counted."""

    def find(self, snapshot: ObjectId, base: ObjectId) -> ObjectId | None:
        """The profile of a pair of snapshots, if one was made and is still there."""
        with self._storage.view() as view:
            value = view.cached(_key(snapshot, base))
        if value is None:
            return None
        identity = ObjectId(value)
        return identity if self._objects.has(identity) else None

    def remember(self, profile: ObjectId, snapshot: ObjectId, base: ObjectId) -> None:
        """Let `find` know a profile: of a commit that was made or fetched."""
        self._storage.index.cache([(_key(snapshot, base), profile)])

    def load(self, identity: ObjectId) -> Profile:
        """The profile of this id. Raises MissingObject, Corruption."""
        return self._objects.load(identity, Profile)

    def ensure(self, snapshot: ObjectId, base: ObjectId, progress: Progress = SILENT) -> ObjectId:
        """The profile of a pair, made by reading both if it is not known, and stored."""
        known = self.find(snapshot, base)
        if known is not None:
            return known
        with Transaction(self._storage) as transaction:
            identity = transaction.add_object(encode(self.make(snapshot, base, progress)))
            transaction.publish()
        self.remember(identity, snapshot, base)
        return identity

    def make(self, snapshot: ObjectId, base: ObjectId, progress: Progress) -> Profile:
        """The profile of a pair, by reading every block that differs."""
        from mergepipe.catalog.builder import ProfileBuilder

        pairs = pair_snapshots(
            self._objects.snapshot(snapshot), self._objects.snapshot(base), self._objects
        )
        builder = ProfileBuilder()
        blocks: dict[int, list[BlockId]] = {}
        identities = list(pairs)
        for number, (pair, tensor) in enumerate(pairs.values()):
            if pair.has_profile():
                builder.begin(number, pair)
                blocks[number] = tensor.block_ids()
        missing = list(builder.missing())
        progress.start("analyze", sum(_length(builder, *place) for place in missing))
        self.fill(builder, [(*place, blocks[place[0]][place[1]]) for place in missing], progress)
        return builder.finish(snapshot, base, identities)

    def fill(
        self,
        builder: "ProfileBuilder",
        places: Iterable[tuple[int, int, BlockId]],
        progress: Progress = SILENT,
    ) -> None:
        """Add facts for stored blocks, given as (tensor number, block index, block id)."""
        from mergepipe.catalog.measuring import FactsJob, FactsOf, PairedBlock, batches

        blocks = (
            PairedBlock(number, builder.pair(number), index, block)
            for number, index, block in places
        )
        answers = self._workforce.answers(
            batches(blocks, self._reader if self._workforce.is_elsewhere(writes=False) else None),
            lambda batch: batch.length,
            FactsJob(),
            FactsOf(lambda batch: self._reader.read(batch.read)),
            progress,
            self._note,
        )
        for batch, measured in answers:
            for counted, facts in zip(batch.blocks, measured, strict=True):
                if counted.base is None:
                    builder.add_unpaired(counted.number, counted.index)
                else:
                    builder.add(counted.number, counted.index, facts)

    def _note(self, result: SegmentResult) -> None:
        for readings in (result.readings, *result.attempts):
            self.worker_bytes += readings.metadata_bytes


def _length(builder: "ProfileBuilder", tensor: int, index: int) -> int:
    begin, end = builder.pair(tensor).span(index)
    return end - begin


def _key(snapshot: ObjectId, base: ObjectId) -> bytes:
    return b"p/" + snapshot + base
