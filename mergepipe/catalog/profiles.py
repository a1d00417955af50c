"""Profiles by pair of snapshots: found where they are known, made where they are not."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mergepipe.catalog.pairing import pair_snapshots
from mergepipe.codecs.workspace import Workspace
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Profile
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.parallel import ordered_map
from mergepipe.progress import SILENT, Progress

if TYPE_CHECKING:  # numpy and numba: loaded only where a profile is made
    from mergepipe.catalog.builder import ProfileBuilder
    from mergepipe.catalog.facts import BlockFacts

_BATCH_BLOCKS = 4


class Profiles:
    """The profiles of one repository."""

    def __init__(
        self, storage: Storage, objects: ObjectStore, reader: BlockReader, threads: int
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._reader = reader
        self._threads = threads

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
        work = partial(_measure, builder, self._reader, Workspace())
        with ThreadPoolExecutor(self._threads, thread_name_prefix="analyze") as pool:
            for batch in ordered_map(pool, work, _batches(places), window=2 * self._threads + 2):
                for tensor, index, facts in batch:
                    if isinstance(facts, _Unpaired):
                        builder.add_unpaired(tensor, index)
                    else:
                        builder.add(tensor, index, facts)
                    progress.advance(_length(builder, tensor, index))


class _Unpaired:
    """Marks a block without a base block."""


_UNPAIRED = _Unpaired()
_Found: TypeAlias = "list[tuple[int, int, BlockFacts | _Unpaired | None]]"


def _measure(
    builder: "ProfileBuilder",
    reader: BlockReader,
    workspace: Workspace,
    batch: list[tuple[int, int, BlockId]],
) -> _Found:
    from mergepipe.catalog.facts import measure

    wanted: list[BlockId] = []
    for tensor, index, block in batch:
        base = builder.pair(tensor).base_block(index)
        if base is not None and base != block:
            wanted += [block, base]
    raws = dict(zip(wanted, reader.read(wanted), strict=True))
    measured: _Found = []
    for tensor, index, block in batch:
        pair = builder.pair(tensor)
        base = pair.base_block(index)
        if base is None:
            measured.append((tensor, index, _UNPAIRED))
        elif base == block:
            measured.append((tensor, index, None))
        else:
            facts = measure(raws[block], raws[base], pair.dtype, pair.samples(index), workspace)
            measured.append((tensor, index, facts))
    return measured


def _batches(
    places: Iterable[tuple[int, int, BlockId]],
) -> Iterator[list[tuple[int, int, BlockId]]]:
    batch: list[tuple[int, int, BlockId]] = []
    for place in places:
        batch.append(place)
        if len(batch) == _BATCH_BLOCKS:
            yield batch
            batch = []
    if batch:
        yield batch


def _length(builder: "ProfileBuilder", tensor: int, index: int) -> int:
    begin, end = builder.pair(tensor).span(index)
    return end - begin


def _key(snapshot: ObjectId, base: ObjectId) -> bytes:
    return b"p/" + snapshot + base
