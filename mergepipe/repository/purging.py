"""Removing models for good: every byte that only they have, with a tombstone in their place.

Tombstones come first: a purge that was cut is done by running it again, and nothing of the model is
sent or taken meanwhile. docs/format.md, "Purged models".
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct, field

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import MergepipeError, MissingObject
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.reader import pack_ids, read_footer
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.gc import Collected, collect
from mergepipe.repository.grace import Grace
from mergepipe.repository.history import first_parents
from mergepipe.repository.leftovers import files_with, forget_facts, remove_leftovers
from mergepipe.repository.purge_report import (
    MovedRef,
    PurgedCommit,
    PurgeReport,
    SharedBlocks,
)
from mergepipe.repository.purge_scope import Scope, purge_scope
from mergepipe.repository.reencoding import Reencoded, leaning_on, reencode
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import HEADS, IMPORTS, REMOTES, TAGS
from mergepipe.repository.refs import RefStore
from mergepipe.repository.roots import checked_out
from mergepipe.repository.tombstones import Tombstone, add_tombstones, line_text

_RUNS = "runs/"


class Place(Struct, frozen=True):
    """The repository that purges. `writing` holds gc off while blocks are stored again."""

    directory: Path
    files: LocalByteStore
    storage: Storage
    objects: ObjectStore
    blocks: BlockReader
    refs: RefStore
    store_lock: Path
    lock_timeout_s: float
    effort: str
    grace_s: float
    writing: Callable[[], AbstractContextManager[None]]


class Purge(Struct, frozen=True):
    """What to remove, and what the tombstone is to say.

    `models`: a commit and its snapshot each; neither has to be here. `who`: as somebody else says.
    """

    models: Sequence[tuple[ObjectId, ObjectId]]
    signature: Signature
    reason: str = ""
    who: str = ""
    dry_run: bool = False
    remotes: Collection[str] = field(default_factory=frozenset)
    """Names of remotes that are asked to purge as well."""


def purge(place: Place, request: Purge, progress: Progress = SILENT) -> PurgeReport:
    """Remove models: refs, blocks, statistics, notes. Returns what went and what stays, and why.

    Every other model reads as before. Raises Locked, NoSpace, Corruption where something that is
    kept is damaged, and MergepipeError if a pack could not be rewritten: the model is then not
    gone, and nothing else is lost.
    """
    storage, refs = place.storage, place.refs
    storage.refresh()
    snapshots = {snapshot for _, snapshot in request.models}
    targets = [commit for commit, _ in request.models]
    who = line_text(request.who or request.signature.author)

    def look() -> Scope:
        return purge_scope(storage, place.objects, refs, snapshots, targets)

    scope = look()
    moves = _moves(refs, place.objects, scope)
    if request.dry_run:
        leaning = list(leaning_on(storage, scope.kept, scope.own))
        packs, stored_bytes = _holding(storage, scope.scrub)
        return _report(
            place,
            request,
            who,
            scope,
            moves,
            packs=packs,
            stored_bytes=stored_bytes,
            reencoded=Reencoded(len(leaning)),
            runs=_runs(place, scope),
            leftovers=tuple(files_with(place.directory, scope.own)),
        )
    stones = [
        Tombstone(commit, snapshot, request.signature.time, who, request.reason)
        for commit, snapshot in {
            **{identity: commit.snapshot for identity, commit in scope.commits.items()},
            **dict(request.models),
        }.items()
    ]
    with refs.together():
        add_tombstones(storage.store, stones)
        for move in moves:
            _move(refs, move, request.signature)
    scope = look()  # what was committed meanwhile, by others, is kept
    packs, stored_bytes = _holding(storage, scope.scrub)
    with place.writing():
        reencoded = _store_again(place, scope, progress)
    collected = _collect(place, scope, progress)
    leftovers = remove_leftovers(place.files, scope.scrub)
    forget_facts(storage.index, scope.scrub)
    runs = _runs(place, scope)
    for run in runs:
        place.files.delete(_run_key(run))
    remaining, _ = _holding(storage, look().scrub)
    if remaining:
        raise MergepipeError(
            f"{len(remaining)} packs still hold blocks of the model: "
            + ", ".join(pack.hex()[:12] for pack in remaining[:4]),
            "they are damaged, or the disk is full: mp fsck says more; then run mp purge again",
        )
    return _report(
        place,
        request,
        who,
        scope,
        moves,
        packs=packs,
        stored_bytes=stored_bytes,
        reencoded=reencoded,
        runs=runs,
        leftovers=leftovers,
        freed_bytes=collected.freed_bytes - reencoded.stored_bytes,
    )


def _store_again(place: Place, scope: Scope, progress: Progress) -> Reencoded:
    leaning = list(leaning_on(place.storage, scope.kept, scope.own))
    if not leaning:
        return Reencoded()
    with Transaction(place.storage) as transaction:
        reencoded = reencode(
            place.blocks, leaning, scope.kept, transaction, effort=place.effort, progress=progress
        )
        transaction.publish()
    return reencoded


def _collect(place: Place, scope: Scope, progress: Progress) -> Collected:
    now_s = time.time()
    try:
        return collect(
            place.files,
            place.storage,
            place.objects,
            place.refs,
            place.store_lock,
            lock_timeout_s=place.lock_timeout_s,
            scrub=scope.scrub,
            now_s=now_s,
            grace=Grace.of(place.grace_s, now_s),
            progress=progress,
        )
    except MissingObject as error:
        raise MissingObject(
            f"{error.message}: perhaps something was committed on top of the model just now",
            "run mp purge again",
        ) from error


def _holding(storage: Storage, scrub: Collection[bytes]) -> tuple[list[PackId], int]:
    """Packs with records of some blocks and objects, or that lean on some; the records' bytes."""
    packs: list[PackId] = []
    stored_bytes = 0
    promised = storage.promises.promised()
    for pack in pack_ids(storage.store):
        if pack in promised:
            continue
        records = [header for header, _ in read_footer(storage.store, pack)[1]]
        stored_bytes += sum(each.stored_bytes for each in records if each.id in scrub)
        if any(each.id in scrub or each.base in scrub for each in records):
            packs.append(pack)
    return packs, stored_bytes


def _moves(refs: RefStore, objects: ObjectStore, scope: Scope) -> list[MovedRef]:
    """Where refs go that stand at a purged commit: branches back, tags and imports away.

    What a remote was seen to have (`refs/remotes/`) is the remote's to change.
    """
    moves = []
    for name, at in refs.list().items():
        if at not in scope.commits or not name.startswith((HEADS, TAGS, IMPORTS)):
            continue
        new = _before(objects, at, scope) if name.startswith(HEADS) else None
        moves.append(MovedRef(name, at.hex(), None if new is None else new.hex()))
    return moves


def _before(objects: ObjectStore, tip: ObjectId, scope: Scope) -> ObjectId | None:
    """The newest commit of a branch's own line that is not purged."""
    line = first_parents(objects, tip)
    return next((each for each, _ in line if each not in scope.commits), None)


def _move(refs: RefStore, move: MovedRef, who: Signature) -> None:
    old, why = ObjectId(bytes.fromhex(move.old)), "purge"
    if move.new is None:
        refs.delete(move.name, expected=old, who=who, why=why, keep_log=move.name.startswith(HEADS))
    else:
        refs.update(move.name, ObjectId(bytes.fromhex(move.new)), expected=old, who=who, why=why)


def _report(
    place: Place,
    request: Purge,
    who: str,
    scope: Scope,
    moves: Sequence[MovedRef],
    *,
    packs: Sequence[PackId],
    stored_bytes: int,
    reencoded: Reencoded,
    runs: Sequence[ObjectId],
    leftovers: tuple[str, ...],
    freed_bytes: int = 0,
) -> PurgeReport:
    objects = place.objects
    shared = tuple(
        SharedBlocks(
            commit="" if each.commit is None else each.commit.hex(),
            snapshot=each.snapshot.hex(),
            message="" if each.commit is None else _title(objects.commit(each.commit)),
            merged=each.commit in scope.merges,
            blocks=each.blocks,
            raw_bytes=each.raw_bytes,
        )
        for each in scope.sharers
    )
    return PurgeReport(
        where=str(place.directory.parent),
        time=request.signature.time,
        who=who,
        reason=line_text(request.reason),
        dry_run=request.dry_run,
        commits=_told(scope.commits),
        refs=tuple(moves),
        tensors=scope.tensors,
        blocks=len(scope.blocks),
        raw_bytes=scope.raw_bytes,
        own_blocks=len(scope.own),
        own_raw_bytes=sum(use.length for use in scope.own.values()),
        own_stored_bytes=stored_bytes,
        own_block_ids=tuple(sorted(block.hex() for block in scope.own)),
        packs=tuple(sorted(pack.hex() for pack in packs)),
        reencoded_blocks=reencoded.blocks,
        reencoded_bytes=reencoded.stored_bytes,
        freed_bytes=freed_bytes,
        profiles=tuple(sorted(each.hex() for each in scope.profiles & scope.objects)),
        runs=tuple(each.hex() for each in runs),
        leftovers=leftovers,
        shared=shared,
        merges=_told(scope.merges),
        worktree=not scope.snapshots.isdisjoint(checked_out(place.storage.store)),
        remotes=_seen_at(place.refs, scope, request.remotes),
    )


def _seen_at(refs: RefStore, scope: Scope, asked: Collection[str]) -> tuple[str, ...]:
    """Remotes whose branches hold a purged commit in their history, as last seen."""
    names = {
        name.removeprefix(REMOTES).partition("/")[0]
        for name, at in refs.list(REMOTES).items()
        if at in scope.holders
    }
    return tuple(sorted(names - set(asked)))


def _runs(place: Place, scope: Scope) -> list[ObjectId]:
    """Purged commits of which it is noted what their merge took."""
    return sorted(each for each in scope.commits if place.files.size(_run_key(each)) is not None)


def _run_key(commit: ObjectId) -> str:
    return f"{_RUNS}{commit.hex()}.json"


def _told(commits: dict[ObjectId, Commit]) -> tuple[PurgedCommit, ...]:
    return tuple(
        PurgedCommit(identity.hex(), commit.snapshot.hex(), _title(commit))
        for identity, commit in sorted(commits.items(), key=lambda each: (each[1].time, each[0]))
    )


def _title(commit: Commit) -> str:
    return commit.message.partition("\n")[0]
