"""gc of a bucket: packs of which no ref there needs anything go, once that was so for long enough.

Nobody computes in a bucket, so whoever asks for it reads all footers and objects, and decides. No
pack is written: one with something alive in it stays as it is. docs/format-remote.md, "gc".
"""

import re
from collections.abc import Mapping
from contextlib import closing

from mergepipe.bytestore.bucket_turns import Collecting
from mergepipe.bytestore.cloud import CloudByteStore
from mergepipe.ids import PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.index import Index
from mergepipe.packs.reader import PREFIX, parse_pack_key
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.gc import Collected
from mergepipe.repository.gc_round import follow
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.survey import Alive, needed_blocks, survey
from mergepipe.transfer.remote_packs import RemoteStorage
from mergepipe.transfer.remote_refs import read_refs

UNNEEDED = "gc/unneeded"
_LINE = re.compile(rb"(?P<pack>[0-9a-f]{64}) (?P<since>[0-9]{1,12})")


def collect_bucket(
    store: CloudByteStore,
    index: Index,
    *,
    command: str,
    grace_s: float,
    now_s: float,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> Collected:
    """Remove the packs that nothing needs, and nothing did for `grace_s` seconds.

    How long is told by notes of earlier runs, in the bucket: the first run only takes note, unless
    `grace_s` is 0. All times are the bucket's; `now_s` (Unix) is that of a dry run, which writes
    nothing and waits for nobody.

    index  over the bucket's packs, as fetches keep it

    Raises Locked while somebody writes there; Corruption and MissingObject where something needed
    is damaged or gone: the bucket is left as it is. RemoteUnreachable, AuthenticationError.
    """
    if dry_run:
        return _collect(store, index, None, now_s, grace_s, progress)
    with Collecting(store, command) as turn:
        return _collect(store, index, turn, turn.now_s, grace_s, progress)


def _collect(
    store: CloudByteStore,
    index: Index,
    turn: Collecting | None,
    now_s: float,
    grace_s: float,
    progress: Progress,
) -> Collected:
    with closing(RemoteStorage(store, index)) as storage:
        storage.refresh()
        needless, unreadable = _needless(storage)
    before_s = now_s - grace_s
    noted, dated = _noted(store), store.dated(PREFIX)
    keys = {pack: key for key in dated if (pack := parse_pack_key(key)) in needless}
    since: dict[PackId, int] = {}
    for pack, key in keys.items():
        known = noted.get(pack)
        # Whoever sent it again, or came to need it meanwhile, begins its time anew.
        since[pack] = int(now_s) if known is None or dated[key].at_s > known else known
    waiting = {pack: at for pack, at in since.items() if grace_s > 0 and at > before_s}
    going = [pack for pack in keys if pack not in waiting]
    if turn is not None:
        if noted != since:
            _note(store, since)
        progress.start("gc", len(going))
        for pack in going:
            turn.check()
            store.delete(keys[pack])
            progress.advance(1, 0)
        if going:
            _note(store, waiting)
    return Collected(
        freed_bytes=sum(dated[keys[pack]].size for pack in going),
        packs_removed=len(going),
        packs_rewritten=0,
        dry_run=turn is None,
        unreadable=tuple(unreadable),
        kept_bytes=sum(dated[keys[pack]].size for pack in waiting),
        kept_until_s=max(waiting.values(), default=0) + grace_s if waiting else 0.0,
    )


def _needless(storage: Storage) -> tuple[set[PackId], list[PackId]]:
    """The packs of which no ref needs anything, and those whose footers cannot be read."""
    store, alive = storage.store, Alive()
    tips = dict.fromkeys(read_refs(store).values.values())
    follow(tips, ObjectStore(storage), alive, read_pruned(store))
    packs, unreadable = survey(storage, alive, needed_blocks(alive.blocks.ids, storage))
    return {pack.id for pack in packs if not pack.live}, unreadable


def _noted(store: CloudByteStore) -> dict[PackId, int]:
    """Since when each pack is known not to be needed; a damaged line says nothing."""
    lines = map(_LINE.fullmatch, (store.get(UNNEEDED) or b"").splitlines())
    return {
        PackId(bytes.fromhex(line["pack"].decode())): int(line["since"])
        for line in lines
        if line is not None
    }


def _note(store: CloudByteStore, since: Mapping[PackId, int]) -> None:
    store.put(UNNEEDED, b"".join(b"%s %d\n" % (p.hex().encode(), s) for p, s in since.items()))
