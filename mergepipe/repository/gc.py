"""Collecting what nothing needs: dead packs are removed, sparse ones rewritten, small ones joined.

What is left over of work that died goes first; then rounds (`gc_round`), until one is not overtaken
by refs that move meanwhile. docs/format.md, "gc".
"""

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import Struct

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import leases, locks
from mergepipe.repository.gc_round import Round, Tally, Wanted
from mergepipe.repository.grace import Grace, young_packs
from mergepipe.repository.incoming import SESSIONS, incoming_key, stale_packs
from mergepipe.repository.layout import CACHE
from mergepipe.repository.leftovers import unfinished_runs
from mergepipe.repository.refs import RefStore
from mergepipe.reprs import brief

_MOST_ROUNDS = 5


@brief
class Collected(Struct, frozen=True):
    """What gc did, or would do. `freed_bytes`: packs removed less packs written.

    `incomplete`: the disk was too full to rewrite all that should be; run it again.
    `unreadable`: packs that were left alone because they are damaged: mp fsck says more.
    `kept_bytes`: records that nothing needs, kept because they are young, or running work reads
    them; the last of them may go at `kept_until_s` (Unix seconds; 0 if there are none).
    """

    freed_bytes: int
    packs_removed: int
    packs_rewritten: int
    dry_run: bool
    incomplete: bool = False
    unreadable: tuple[PackId, ...] = ()
    kept_bytes: int = 0
    kept_until_s: float = 0.0


def collect(
    files: LocalByteStore,
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    store_lock: Path,
    *,
    lock_timeout_s: float = 10.0,
    reflog: bool = True,
    reflog_since: int = 0,
    extra_roots: Iterable[ObjectId] = (),
    pruned: Iterable[ObjectId] = (),
    scrub: Collection[bytes] = frozenset(),
    dry_run: bool = False,
    now_s: float = 0.0,
    grace: Grace | None = None,
    progress: Progress = SILENT,
) -> Collected:
    """Free what no ref, HEAD, reflog, worktree or `extra_roots` needs of a repository.

    Of commits in `pruned`, and those that the repository says it pruned, only history is kept.
    Packs that others sent, and nobody asked for in the week before `now_s` (Unix), go too.

    `scrub`: blocks and objects of which no byte is to stay in any pack, unless something that is
    kept has come to name them; what leans on them must be stored in another way, too.

    `grace`: what is younger stays all the same, with all it needs; and whatever leases name.
    `reflog`: whether what only reflogs name is kept; of moves before `reflog_since` (Unix), which
    go, it is not. Waits for every process that is writing
    (`store_lock`, exclusive). Raises Locked, and MissingObject or Corruption where something
    needed is missing already: a damaged repository is left as it is. NoSpace only if nothing
    could be freed.
    """
    tally = Tally()
    extra, without, unwanted = tuple(extra_roots), frozenset(pruned), frozenset(scrub)
    with locks.acquire(store_lock, timeout_s=lock_timeout_s):
        if not dry_run:
            files.remove_dead_sessions()
            with LocalByteStore(files.root, SESSIONS) as cut_short:
                cut_short.remove_dead_sessions()
            leases.remove_dead(files.root, now_s)
            _remove_sums(files, tally)
            _remove_stale(files, now_s, tally)
            _remove_cut_short(files, grace, tally)
        storage.refresh()
        wanted = Wanted(
            reflog=reflog,
            reflog_since=reflog_since,
            extra=extra,
            pruned=without,
            scrub=unwanted,
            grace=grace,
            reading=tuple(leases.needed(files.root, now_s)),
            young=young_packs(files, grace),
        )
        for _ in range(_MOST_ROUNDS):
            attempt = Round(files, storage, objects, refs, wanted, tally)
            attempt.plan()
            if dry_run:
                attempt.foretell()
                break
            if attempt.run(progress):
                attempt.forget_pruned()
                break
    return Collected(
        freed_bytes=tally.freed_bytes,
        packs_removed=tally.removed,
        packs_rewritten=tally.rewritten,
        dry_run=dry_run,
        incomplete=tally.incomplete,
        unreadable=tuple(sorted(tally.unreadable)),
        kept_bytes=tally.kept_bytes,
        kept_until_s=tally.kept_until_s,
    )


def _remove_sums(files: LocalByteStore, tally: Tally) -> None:
    """What merges keep to read less next time: it goes before anything else."""
    for key in list(files.list(f"{CACHE}/")):
        tally.freed_bytes += files.size(key) or 0
        files.delete(key)


def _remove_stale(files: LocalByteStore, now_s: float, tally: Tally) -> None:
    """What was sent and never taken in. Nobody is taking it in just now: `store.lock` is held."""
    for pack, size in stale_packs(files.root, now_s):
        files.delete(incoming_key(pack))
        tally.freed_bytes += size
        tally.removed += 1


def _remove_cut_short(files: LocalByteStore, grace: Grace | None, tally: Tally) -> None:
    """What merges had done that died (`unfinished/<plan>/`), and nobody went on with in time."""
    for folder in unfinished_runs(files.root):
        keys = list(files.list(folder))
        times = [at for key in keys if (at := files.modified(key)) is not None]
        if grace is None or not times or max(times) <= grace.before_s:
            tally.freed_bytes += sum(files.size(key) or 0 for key in keys)
            for key in keys:
                files.delete(key)
            with contextlib.suppress(OSError):
                files.path(folder.rstrip("/")).rmdir()
