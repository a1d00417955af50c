"""One round of gc: what is alive now, and what becomes of packs by that.

Every step leaves a repository that reads: new packs are durable and indexed before an old one goes,
and packs with nothing alive go first, so that it works on a full disk. docs/format.md, "gc".
"""

import itertools
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import Corruption, NoSpace
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.records import Commit, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.footer_table import stored_bytes
from mergepipe.packs.format import Content
from mergepipe.packs.id_arrays import Ids, among, batches, sorted_ids, union, without
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Place
from mergepipe.packs.storage import Storage
from mergepipe.progress import Progress
from mergepipe.repository.absent import change_absent, read_absent
from mergepipe.repository.closure import Complaint, Use, closure
from mergepipe.repository.grace import Grace, Spared, contents, lately_pruned, models_of
from mergepipe.repository.notes import note_key, noted_commits
from mergepipe.repository.pruned import Pruned, read_pruned, remove_pruned
from mergepipe.repository.refs import RefStore
from mergepipe.repository.repacking import Order, rewrite
from mergepipe.repository.roots import Roots, newest_first, roots
from mergepipe.repository.survey import (
    Alive,
    PackState,
    needed_blocks,
    places_of,
    readable_blocks,
    survey,
)

# A pack with less than this share alive is rewritten: at most half of what is copied was wasted.
SPARSE_SHARE = 0.5
# Object packs come one a commit; many of them make opening and listing slow.
SMALL_PACK_BYTES = 4 << 20
MANY_SMALL_PACKS = 16
_BATCH = 4096


class Tally(Struct):
    """What was done so far, over all rounds."""

    freed_bytes: int = 0
    removed: int = 0
    rewritten: int = 0
    incomplete: bool = False
    unreadable: set[PackId] = field(default_factory=set)
    kept_bytes: int = 0
    kept_until_s: float = 0.0


class Wanted(Struct, frozen=True):
    """What is kept, beside what refs name. `reading`: what running work does."""

    reflog: bool
    reflog_since: int
    extra: tuple[ObjectId, ...]
    pruned: frozenset[ObjectId]
    scrub: frozenset[bytes]
    grace: Grace | None
    reading: tuple[ObjectId, ...]
    young: dict[PackId, float]


class Round:
    """Looks once at what is alive (`plan`), and does or foretells what follows from that."""

    def __init__(
        self,
        files: LocalByteStore,
        storage: Storage,
        objects: ObjectStore,
        refs: RefStore,
        wanted: Wanted,
        tally: Tally,
    ) -> None:
        self._files = files
        self._storage = storage
        self._objects = objects
        self._refs = refs
        self._wanted = wanted
        self._tally = tally
        self._alive = Alive()
        self._dead: list[PackState] = []
        self._sparse: list[PackState] = []

    def plan(self) -> None:
        """Find out what is alive, and sort the packs."""
        roots = self._roots()
        pruned = read_pruned(self._storage.store)
        scrubbed = (ObjectId(identity) for identity in self._wanted.scrub)
        gone = pruned.without(self._wanted.pruned, scrubbed)
        # Newest first: in this order packs are written, so that what is read most lies together.
        follow(newest_first(roots.required, self._objects), self._objects, self._alive, gone)
        # What only a log or a note names may be gone, in part or whole: an earlier gc was told not
        # to keep it, or a crash came between the log's line and the objects.
        partly = Alive(dict(self._alive.objects))
        named = (*roots.optional, *self._wanted.reading)
        follow(named, self._objects, partly, gone, _tolerate)
        scrub = _beside(self._wanted.scrub, self._alive.blocks.ids, partly.blocks.ids)
        avoid = places_of(self._storage, scrub) if scrub else frozenset[Place]()
        blocks = needed_blocks(self._alive.blocks.ids, self._storage, avoid)
        more = readable_blocks(without(partly.blocks.ids, blocks), self._storage, avoid)
        blocks = union(blocks, more)
        self._alive.objects = partly.objects
        lately = lately_pruned(pruned, self._wanted.grace, self._wanted.pruned)
        spared = self._spare(lately, gone, blocks, scrub)
        blocks = union(blocks, spared.blocks)
        packs, unreadable = survey(self._storage, self._alive, blocks)
        self._tally.unreadable.update(unreadable)
        resting = self._tell_spared(packs, spared)
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
            if pack.content is Content.OBJECTS
            and pack.size < SMALL_PACK_BYTES
            and pack.id not in resting
        ]
        if len(small) >= MANY_SMALL_PACKS:
            chosen = _ids(self._sparse)
            self._sparse += [pack for pack in small if pack.id not in chosen]

    def _roots(self) -> Roots:
        wanted = self._wanted
        return roots(
            self._refs,
            self._storage.store,
            reflog=wanted.reflog,
            reflog_since=wanted.reflog_since,
            extra=wanted.extra,
        )

    def _spare(
        self,
        lately: Mapping[ObjectId, int],
        gone: Pruned,
        blocks: Ids,
        scrub: frozenset[bytes],
    ) -> Spared:
        """Find what is too young to go, with all that it needs, beside the `blocks` that stay.

        Its objects are alive from here on.
        """
        young = self._wanted.young
        if not (young or lately):
            return Spared()
        objects, young_blocks = contents(self._files, young)
        alive = Alive(dict(self._alive.objects), young_blocks)
        named = (ObjectId(each) for batch in batches(objects.ids, _BATCH) for each in batch)
        models = models_of(lately, self._objects)
        follow(itertools.chain(models, named), self._objects, alive, gone, _tolerate)
        avoid = places_of(self._storage, scrub) if scrub else frozenset[Place]()
        spare = without(without(alive.blocks.ids, blocks), sorted_ids(scrub))
        more = without(readable_blocks(spare, self._storage, avoid), blocks)
        spared = Spared(alive.objects.keys() - self._alive.objects.keys(), more, lately)
        self._alive.objects = alive.objects
        return spared

    def _tell_spared(self, packs: Iterable[PackState], spared: Spared) -> set[PackId]:
        """Count what only grace keeps; returns the packs that hold it."""
        resting: set[PackId] = set()
        self._tally.kept_bytes = 0
        ids = spared.ids()
        if not len(ids):
            return resting
        for pack in packs:
            if not pack.live:
                continue
            table = pack.live.table()
            kept = int(stored_bytes(table)[among(table["id"], ids)].sum())
            if kept:
                resting.add(pack.id)
                self._tally.kept_bytes += kept
        if resting and self._wanted.grace is not None:
            times = [self._wanted.young.get(pack, 0.0) for pack in resting]
            self._tally.kept_until_s = max(*times, *spared.pruned.values(), 0) + (
                self._wanted.grace.length_s
            )
        return resting

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
        self._alive.blocks.add(b"".join(self._alive.objects))
        order = Order(self._sparse, self._alive.blocks)
        for group in order.groups():
            try:
                written = rewrite(group, order, self._files, self._storage, progress)
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
        """Drop what was said, and noted, of commits that are no more.

        Who brings one again wants it kept.
        """
        with self._refs.locked():
            store = self._storage.store
            gone = read_pruned(store).times.keys() - self._alive.objects.keys()
            remove_pruned(store, gone)
            named = {
                each
                for identity, kind in self._alive.objects.items()
                if kind == Commit.KIND
                for each in self._objects.absent_of(identity)
            }
            change_absent(store, here=read_absent(store) - named)
            for commit in set(noted_commits(store)) - self._alive.objects.keys():
                store.delete(note_key(commit))

    def _remove(self, packs: list[PackState]) -> bool:
        """Delete packs, unless a ref came to need something else meanwhile."""
        if not packs:
            return True
        with self._refs.locked():
            roots = self._roots()
            present = (root for root in roots.required if root not in self._alive.objects)
            if next(present, None) is not None:
                return False
            # The files first: a reader that looks in between finds the index one step behind,
            # which it repairs. Only unlink gives room on a full disk.
            for pack in packs:
                self._storage.store.delete(pack_key(pack.id))
                self._tally.freed_bytes += pack.size
        self._storage.index.drop_packs(_ids(packs))
        return True


def follow(
    roots: Iterable[ObjectId],
    objects: ObjectStore,
    alive: Alive,
    pruned: Pruned,
    complain: Complaint | None = None,
) -> None:
    """Add to `alive` all that `roots` reach. Raises MissingObject, Corruption."""
    references = (Reference(root, None, "root") for root in roots if root not in pruned.gone)
    for needed in closure(
        references, objects, known=alive.objects, pruned=pruned, complain=complain
    ):
        alive.objects[needed.id] = needed.kind
        if isinstance(needed.record, Tensor):
            alive.blocks.add(needed.record.blocks)


def _beside(identities: frozenset[bytes], *others: Ids) -> frozenset[bytes]:
    """Those that are in none of the others."""
    ids = sorted_ids(identities)
    for other in others:
        ids = without(ids, other)
    return frozenset(each for batch in batches(ids, _BATCH) for each in batch)


def _ids(packs: Iterable[PackState]) -> set[PackId]:
    return {pack.id for pack in packs}


def _tolerate(use: Use, error: Corruption) -> None:
    """What a log or note names and is not there any more is no reason to stop."""
