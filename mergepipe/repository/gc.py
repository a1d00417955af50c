"""Collecting what nothing needs: dead packs are removed, sparse ones rewritten, small ones joined.

Every step leaves a repository that reads: new packs are durable and indexed before an old one goes,
and packs with nothing alive go first, so that it works on a full disk. docs/format.md, "gc".
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.errors import Corruption, NoSpace
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.records import Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content, RecordHeader
from mergepipe.packs.index import PackEntry
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Place
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import PACK_BYTES, Lane
from mergepipe.packs.writer import PackWriter
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import locks
from mergepipe.repository.closure import Complaint, Use, closure
from mergepipe.repository.incoming import SESSIONS, incoming_key, stale_packs
from mergepipe.repository.pruned import read_pruned, remove_pruned
from mergepipe.repository.refs import RefStore
from mergepipe.repository.roots import roots
from mergepipe.repository.survey import (
    Alive,
    PackState,
    check_record,
    needed_blocks,
    places_of,
    readable_blocks,
    survey,
)
from mergepipe.reprs import brief

# A pack with less than this share alive is rewritten: at most half of what is copied was wasted.
SPARSE_SHARE = 0.5
# Object packs come one a commit; many of them make opening and listing slow.
SMALL_PACK_BYTES = 4 << 20
MANY_SMALL_PACKS = 16
_MOST_ROUNDS = 5


@brief
@dataclass(frozen=True, slots=True)
class Collected:
    """What gc did, or would do. `freed_bytes`: packs removed less packs written.

    `incomplete`: the disk was too full to rewrite all that should be; run it again.
    `unreadable`: packs that were left alone because they are damaged: mp fsck says more.
    """

    freed_bytes: int
    packs_removed: int
    packs_rewritten: int
    dry_run: bool
    incomplete: bool = False
    unreadable: tuple[PackId, ...] = ()


@dataclass(slots=True)
class _Tally:
    freed_bytes: int = 0
    removed: int = 0
    rewritten: int = 0
    incomplete: bool = False
    unreadable: set[PackId] = field(default_factory=set)


def collect(
    files: LocalByteStore,
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    store_lock: Path,
    *,
    lock_timeout_s: float = 10.0,
    reflog: bool = True,
    extra_roots: Iterable[ObjectId] = (),
    pruned: Iterable[ObjectId] = (),
    scrub: Collection[bytes] = frozenset(),
    dry_run: bool = False,
    now_s: float = 0.0,
    progress: Progress = SILENT,
) -> Collected:
    """Free what no ref, HEAD, reflog, worktree or `extra_roots` needs of a repository.

    Of commits in `pruned`, and those that the repository says it pruned, only history is kept.
    Packs that others sent, and nobody asked for in the week before `now_s` (Unix), go too.

    `scrub`: blocks and objects of which no byte is to stay in any pack, unless something that is
    kept has come to name them; what leans on them must be stored in another way, too.

    `reflog`: whether what only reflogs name is kept. Waits for every process that is writing
    (`store_lock`, exclusive). Raises Locked, and MissingObject or Corruption where something
    needed is missing already: a damaged repository is left as it is. NoSpace only if nothing
    could be freed.
    """
    extra = tuple(extra_roots)
    without, unwanted = frozenset(pruned), frozenset(scrub)
    tally = _Tally()
    with locks.acquire(store_lock, timeout_s=lock_timeout_s):
        if not dry_run:
            files.remove_dead_sessions()
            with LocalByteStore(files.root, SESSIONS) as cut_short:
                cut_short.remove_dead_sessions()
            _remove_stale(files, now_s, tally)
        storage.refresh()
        for _ in range(_MOST_ROUNDS):
            collection = _Collection(
                storage, objects, refs, reflog, extra, without, unwanted, tally
            )
            collection.plan()
            if dry_run:
                collection.foretell()
                break
            if collection.run(progress):
                collection.forget_pruned()
                break
    return Collected(
        tally.freed_bytes,
        tally.removed,
        tally.rewritten,
        dry_run,
        tally.incomplete,
        tuple(sorted(tally.unreadable)),
    )


class _Collection:
    """One round: what is alive now, and what follows from that."""

    def __init__(
        self,
        storage: Storage,
        objects: ObjectStore,
        refs: RefStore,
        reflog: bool,
        extra: tuple[ObjectId, ...],
        pruned: frozenset[ObjectId],
        scrub: frozenset[bytes],
        tally: _Tally,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._refs = refs
        self._reflog = reflog
        self._extra = extra
        self._pruned = pruned
        self._scrub = scrub
        self._tally = tally
        self._alive = Alive()
        self._dead: list[PackState] = []
        self._sparse: list[PackState] = []

    def plan(self) -> None:
        """Find out what is alive, and sort the packs."""
        found = roots(self._refs, self._storage.store, reflog=self._reflog, extra=self._extra)
        self._follow(found.required, self._alive)
        # What only a log or a note names may be gone, in part or whole: an earlier gc was told not
        # to keep it, or a crash came between the log's line and the objects.
        partly = Alive(dict(self._alive.objects), {})
        self._follow(found.optional, partly, _tolerate)
        self._alive.objects = partly.objects
        scrub = self._scrub - self._alive.blocks.keys() - partly.blocks.keys()
        avoid = places_of(self._storage, scrub) if scrub else frozenset[Place]()
        blocks = needed_blocks(self._alive.blocks, self._storage, avoid)
        blocks |= readable_blocks(partly.blocks.keys() - blocks, self._storage, avoid)
        packs, unreadable = survey(self._storage, self._alive, blocks)
        self._tally.unreadable.update(unreadable)
        self._dead = [pack for pack in packs if not pack.live]
        alive = [pack for pack in packs if pack.live]
        self._sparse = [
            pack
            for pack in alive
            if pack.live_bytes < SPARSE_SHARE * pack.record_bytes or pack.has_dead(scrub)
        ]
        small = [
            pack
            for pack in alive
            if pack.content is Content.OBJECTS and pack.size < SMALL_PACK_BYTES
        ]
        if len(small) >= MANY_SMALL_PACKS:
            chosen = _ids(self._sparse)
            self._sparse += [pack for pack in small if pack.id not in chosen]

    def _follow(
        self, roots: Iterable[ObjectId], alive: Alive, complain: Complaint | None = None
    ) -> None:
        """Add to `alive` all that `roots` reach. Raises MissingObject, Corruption."""
        references = (Reference(root, None, "root") for root in roots if root not in self._scrub)
        gone = (ObjectId(identity) for identity in self._scrub)
        for needed in closure(
            references,
            self._objects,
            known=alive.objects,
            pruned=read_pruned(self._storage.store).without(self._pruned, gone),
            complain=complain,
        ):
            alive.objects[needed.id] = needed.kind
            if isinstance(needed.record, Tensor):
                alive.blocks.update(dict.fromkeys(needed.record.block_ids()))

    def foretell(self) -> None:
        """Count what `run` would do."""
        for pack in self._dead:
            self._tally.removed += 1
            self._tally.freed_bytes += pack.size
        for pack in self._sparse:
            self._tally.rewritten += 1
            self._tally.freed_bytes += pack.record_bytes - pack.live_bytes

    def run(self, progress: Progress) -> bool:
        """Do it. False if refs moved to what was taken for dead: then look again."""
        if not self._remove(self._dead):
            return False
        self._tally.removed += len(self._dead)
        progress.start("gc", sum(pack.live_bytes for pack in self._sparse))
        for group in _groups(self._in_order(self._sparse)):
            try:
                written = self._rewrite(group, progress)
            except NoSpace:
                if not self._tally.freed_bytes:
                    raise
                self._tally.incomplete = True
                return True
            except Corruption:  # a live record fails its checksum: nothing to copy, nor to drop
                self._tally.unreadable.update(pack.id for pack in group)
                continue
            # Joining a single pack makes the same pack again.
            old = [pack for pack in group if pack.id not in written]
            self._tally.freed_bytes -= sum(
                size for identity, size in written.items() if identity not in _ids(group)
            )
            if not self._remove(old):
                return False
            self._tally.rewritten += len(old)
        return True

    def forget_pruned(self) -> None:
        """Drop what was said of commits that are no more: who brings one again wants it kept."""
        with self._refs.locked():
            store = self._storage.store
            gone = read_pruned(store).times.keys() - self._alive.objects.keys()
            remove_pruned(store, gone)

    def _remove(self, packs: list[PackState]) -> bool:
        """Delete packs, unless a ref came to need something else meanwhile."""
        if not packs:
            return True
        with self._refs.locked():
            found = roots(self._refs, self._storage.store, reflog=self._reflog, extra=self._extra)
            present = (root for root in found.required if root not in self._alive.objects)
            if next(present, None) is not None:
                return False
            # The files first: a reader that looks in between finds the index one step behind,
            # which it repairs. Only unlink gives room on a full disk.
            for pack in packs:
                self._storage.store.delete(pack_key(pack.id))
                self._tally.freed_bytes += pack.size
        self._storage.index.drop_packs(_ids(packs))
        return True

    def _in_order(self, packs: list[PackState]) -> list[PackState]:
        """Packs in the order they came into the index, so that models stay together."""
        with self._storage.view() as view:
            place = {pack: number for number, pack in enumerate(view.packs())}
        return sorted(packs, key=lambda pack: (place.get(pack.id, len(place)), pack.id))

    def _rewrite(self, group: list[PackState], progress: Progress) -> dict[PackId, int]:
        """Copy live records, byte for byte and in order, to new packs; returns their sizes."""
        writers: dict[Lane, PackWriter] = {}
        values: list[tuple[ByteWriter, str]] = []
        entries: list[PackEntry] = []
        try:
            for pack in group:
                for header, offset in pack.live:
                    lane = _lane(pack.content, header)
                    writer = writers.get(lane)
                    if writer is None:
                        writer = writers[lane] = PackWriter(self._storage.store, pack.content)
                    data = check_record(self._storage, pack.id, header, offset)
                    sealed = bytes(data[:RECORD_HEADER_BYTES])
                    writer.add_sealed(header, sealed, memoryview(data)[RECORD_HEADER_BYTES:])
                    progress.advance(len(data))
            for writer in writers.values():
                identity, value = writer.finish()
                values.append((value, pack_key(identity)))
                entries.append(PackEntry(identity, value.size, writer.content, writer.records))
                value.sync()
            self._storage.store.publish(values)
        except BaseException:
            for writer in writers.values():
                writer.abort()
            raise
        self._storage.index.add_packs(entries)
        return {entry.id: entry.size for entry in entries}


def _remove_stale(files: LocalByteStore, now_s: float, tally: _Tally) -> None:
    """What was sent and never taken in. Nobody is taking it in just now: `store.lock` is held."""
    for pack, size in stale_packs(files.root, now_s):
        files.delete(incoming_key(pack))
        tally.freed_bytes += size
        tally.removed += 1


def _groups(packs: Iterable[PackState]) -> Iterator[list[PackState]]:
    """Packs whose live records fill about one new pack."""
    group: list[PackState] = []
    size = 0
    for pack in packs:
        if group and size + pack.live_bytes > PACK_BYTES:
            yield group
            group, size = [], 0
        group.append(pack)
        size += pack.live_bytes
    if group:
        yield group


def _ids(packs: Iterable[PackState]) -> set[PackId]:
    return {pack.id for pack in packs}


def _lane(content: Content, header: RecordHeader) -> Lane:
    if content is Content.OBJECTS:
        return Lane.OBJECTS
    return Lane.COARSE if header.layer + 1 < header.layers else Lane.WHOLE


def _tolerate(use: Use, error: Corruption) -> None:
    """What a log or note names and is not there any more is no reason to stop."""
