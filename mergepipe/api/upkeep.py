"""Looking after a repository: how much room it takes, what is wrong with it, what can go."""

import re
import time
from collections.abc import Sequence

from msgspec import Struct

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import Locked, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_ids, read_footer
from mergepipe.progress import Progress
from mergepipe.repository import layout, leases
from mergepipe.repository.fsck import fsck as check
from mergepipe.repository.gc import Collected, collect
from mergepipe.repository.grace import Grace, young_packs
from mergepipe.repository.keeping import Kept
from mergepipe.repository.keeping import why_kept as why_kept_by
from mergepipe.repository.problems import Report
from mergepipe.repository.pruned import add_pruned, read_lines, read_pruned
from mergepipe.repository.reading_rounds import Portion
from mergepipe.repository.refnames import HEADS, IMPORTS, TAGS, branch_ref
from mergepipe.repository.retention import Retention, prunable
from mergepipe.repository.usage import Usage, default_revisions, measure
from mergepipe.repository.waiting import awaited_models, forget_before
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.urls import CLOUD


def usage(repository: OpenRepository, revisions: Sequence[str]) -> Usage:
    """The room that revisions take; every branch, tag and import if none is named."""
    chosen = [(name, repository.model_of(name)[0]) for name in revisions]
    if not chosen:
        chosen = default_revisions(repository.refs)
        if read_lines(repository.store)[0].times:  # else none was let go of
            chosen = [each for each in chosen if repository.has_model(each[1])]
    return measure(chosen, repository.objects, repository.storage)


def gc(
    repository: OpenRepository,
    *,
    dry_run: bool,
    keep_reflog: bool,
    grace_s: float | None,
    progress: Progress,
) -> Collected:
    """Free what nothing needs, and nothing did for `grace_s` seconds (None: `gc.grace`).

    Raises Locked, and Corruption if something needed is missing.
    """
    return _collect(
        repository,
        (),
        dry_run=dry_run,
        keep_reflog=keep_reflog,
        grace_s=grace_s,
        progress=progress,
    )


def gc_bucket(
    repository: OpenRepository,
    remote: str,
    credentials: Credentials,
    *,
    dry_run: bool,
    grace_s: float | None,
    progress: Progress,
) -> Collected:
    """Free what no ref of a bucket needs, and none did for `grace_s` seconds (None: `gc.grace`).

    Raises UsageError for remotes that are none, and as `collect_bucket` says.
    """
    name, url = repository.remote_called(remote)
    if url.scheme not in CLOUD:
        raise UsageError(
            f"{quoted(remote)} is no bucket: {url.shown}",
            "run `mp gc` in the repository there, on its machine",
        )
    if not name:
        raise UsageError(f"{quoted(remote)} is not the name of a remote", "mp remote add NAME URL")
    from mergepipe.bytestore.cloud import open_bucket
    from mergepipe.transfer.bucket_gc import collect_bucket
    from mergepipe.transfer.remote_packs import remote_index

    with (
        open_bucket(url.scheme, url.host, url.path, credentials.environment) as store,
        repository.writing(),
    ):
        return collect_bucket(
            store,
            Index.of(repository.directory, remote_index(name)),
            command=repository.command,
            grace_s=repository.config.gc.grace if grace_s is None else grace_s,
            now_s=time.time(),
            dry_run=dry_run,
            progress=progress,
        )


class Pruned(Struct, frozen=True):
    """What `prune` let go of, or would: commits whose models are not kept any more, and the gc."""

    commits: tuple[ObjectId, ...]
    collected: Collected


def prune(
    repository: OpenRepository,
    branches: Sequence[str],
    retention: Retention,
    *,
    keep_tags: bool,
    dry_run: bool,
    grace_s: float | None,
    progress: Progress,
) -> Pruned:
    """Let go of models that `retention` does not keep, and free what only they needed."""
    refs, objects, store = repository.refs, repository.objects, repository.store
    heads = refs.list(HEADS)
    chosen = [branch_ref(name) for name in branches] or list(heads)
    for name, ref in zip(branches, chosen, strict=False):
        if ref not in heads:
            repository.resolve(name)  # for its hint at the nearest name
            raise RevisionNotFound(f"{name!r} is no branch", "mp branch lists them")
    head = refs.head().commit
    pinned = [*heads.values(), *refs.list(IMPORTS).values(), *([] if head is None else [head])]
    if keep_tags:
        pinned += refs.list(TAGS).values()
    before = read_pruned(store)
    tips = [heads[ref] for ref in chosen]
    awaited = awaited_models(store, objects)
    going = [
        each
        for each in prunable(tips, objects, retention, pinned=pinned, pruned=before)
        if objects.commit(each).snapshot not in awaited
    ]
    if dry_run:
        collected = _collect(repository, going, dry_run=True, grace_s=grace_s, progress=progress)
        return Pruned(tuple(going), collected)
    with refs.locked():
        refs.note_pruned(going)
        add_pruned(store, going, int(time.time()))  # what grace is counted from
    collected = _collect(repository, (), dry_run=False, grace_s=grace_s, progress=progress)
    return Pruned(tuple(going), collected)


def _collect(
    repository: OpenRepository,
    pruned: Sequence[ObjectId],
    *,
    dry_run: bool,
    grace_s: float | None,
    progress: Progress,
    keep_reflog: bool = True,
) -> Collected:
    if not dry_run:
        repository.guard()
    length_s = repository.config.gc.grace if grace_s is None else grace_s
    now_s = time.time()
    try:
        return _run(
            repository, pruned, Grace.of(length_s, now_s), now_s, dry_run, keep_reflog, progress
        )
    except Locked as error:
        working = leases.running(repository.directory, now_s)
        if not working:
            raise
        names = ", ".join(lease.told(now_s) for lease in working)
        raise Locked(f"{error.message}: {names}", error.hint) from error


def _run(
    repository: OpenRepository,
    pruned: Sequence[ObjectId],
    grace: Grace | None,
    now_s: float,
    dry_run: bool,
    keep_reflog: bool,
    progress: Progress,
) -> Collected:
    since = int(now_s) - repository.config.gc.reflog_expire
    if not dry_run:
        forget_before(repository.local, now_s - repository.config.gc.grace)
    if since > 0 and not dry_run:
        expire_reflog(repository, since)
    return collect(
        repository.local,
        repository.storage,
        repository.objects,
        repository.refs,
        repository.directory / layout.STORE_LOCK,
        lock_timeout_s=repository.lock_timeout_s,
        reflog=keep_reflog,
        reflog_since=max(0, since),
        pruned=pruned,
        dry_run=dry_run,
        now_s=now_s,
        grace=grace,
        progress=progress,
    )


def fsck(
    repository: OpenRepository,
    *,
    read_data: bool,
    repair: bool,
    restore: bool = False,
    portion: Portion | None = None,
    progress: Progress,
) -> Report:
    """Check everything, and with `repair` put right what can be here: `api.healing` asks others.

    `portion`: how much data to read, after what was read last. `restore`: damaged refs too,
    from their logs. Raises Locked.
    """
    if repair:
        repository.guard()
    # What a lazy clone has is checked, and not what its remote has, which is what workers see.
    reads = (read_data or portion is not None) and repository.lazy_remote is None
    return check(
        repository.storage,
        repository.objects,
        repository.refs,
        repository.directory / layout.STORE_LOCK,
        max_chain=repository.config.store.max_chain,
        read_data=read_data,
        portion=portion,
        now_s=time.time(),
        repair=repository.signature() if repair else None,
        restore=restore,
        workforce=repository.workforce if reads else None,
        lock_timeout_s=repository.lock_timeout_s,
        progress=progress,
    )


def why_kept(repository: OpenRepository, what: str) -> Kept:
    """What keeps a commit, object, block or pack. Raises RevisionNotFound."""
    now_s = time.time()
    running = leases.running(repository.directory, now_s)
    grace = Grace.of(repository.config.gc.grace, now_s)
    return why_kept_by(
        repository.storage,
        repository.objects,
        repository.refs,
        _ids_of(repository, what),
        [(lease.command, map(_object_id, lease.needs)) for lease in running],
        young_packs(repository.local, grace),
        grace,
    )


def expire_reflog(repository: OpenRepository, before: int, ref: str | None = None) -> int:
    """Drop old moves from logs; returns how many went. Raises RevisionNotFound, Locked."""
    reflog = repository.refs.reflog
    assert reflog is not None
    repository.guard()
    names = list(reflog.names())
    if ref is not None:
        chosen = [each for each in names if each in (ref, HEADS + ref, TAGS + ref, f"refs/{ref}")]
        if not chosen:
            raise RevisionNotFound(f"no log of {ref!r}", "mp branch and mp tag list what there is")
        names = chosen[:1]
    with repository.refs.locked():
        return sum(reflog.expire(name, before) for name in names)


def _object_id(hexadecimal: str) -> ObjectId:
    return ObjectId(bytes.fromhex(hexadecimal))


def _ids_of(repository: OpenRepository, what: str) -> frozenset[bytes]:
    """The ids that a revision or the beginning of an id stands for; of a pack, what it holds."""
    prefix = what.lower()
    if re.fullmatch(r"[0-9a-f]{4,64}", prefix):
        packs = [each for each in pack_ids(repository.store) if each.hex().startswith(prefix)]
        if len(packs) == 1:
            _, records = read_footer(repository.store, packs[0])
            return frozenset(bytes(header.id) for header, _ in records)
        objects = repository.objects.find_prefix(prefix, 2)
        if len(objects) == 1:
            return frozenset([bytes(objects[0])])
        if not objects:
            with repository.storage.view() as view:
                blocks = {at.header.id for at in view.blocks() if at.id.hex().startswith(prefix)}
            if len(blocks) == 1:
                return frozenset(bytes(each) for each in blocks)
    return frozenset([bytes(repository.resolve(what))])
