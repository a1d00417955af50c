"""Fetching: what a remote's branches need and is not here, verified before our refs follow.

The remote is any byte store, and nothing it says is believed: commits and other objects are walked
as they come, each compared with its id; blocks are admitted from quarantine by the code that
admits what others push. docs/format-remote.md, "Receiving".
"""

import functools
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from mergepipe.bytestore.elsewhere import located
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, RevisionNotFound
from mergepipe.ids import BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.records import Tensor
from mergepipe.packs.index import Index
from mergepipe.packs.places import lacking
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.absent import change_absent, read_absent
from mergepipe.repository.history import reachable_commits
from mergepipe.repository.layout import PACKS
from mergepipe.repository.pruned import Pruned, read_pruned
from mergepipe.repository.refnames import HEADS, REMOTES, short_name
from mergepipe.repository.refs import ANY
from mergepipe.repository.tombstones import read_tombstones
from mergepipe.reprs import brief
from mergepipe.transfer.admission import Admission
from mergepipe.transfer.downloading import (
    FETCH_PACK_BYTES,
    BlockDownload,
    Downloads,
    Received,
)
from mergepipe.transfer.far_objects import FarObjects
from mergepipe.transfer.following import follow_pruned
from mergepipe.transfer.home import Home
from mergepipe.transfer.horizon import Horizon, Reach, horizon
from mergepipe.transfer.inspection import Inspected
from mergepipe.transfer.new_commits import commits_between, known_objects, objects_of
from mergepipe.transfer.noting import fetch_notes
from mergepipe.transfer.quarantine import Quarantine
from mergepipe.transfer.remote_packs import RemoteStorage, remote_index
from mergepipe.transfer.remote_refs import (
    RemoteRefs,
    first_branches,
    read_refs,
    read_some_refs,
    tracking_ref,
)
from mergepipe.transfer.two_storages import layered

# A fetch is asked for, unlike a push: the disk is its limit, which is looked at before.
_NO_LIMIT_BYTES = 1 << 62
# New tips from which on it is faster to know all packs of the remote than to ask for those of each.
_MANY_TIPS = 1000


@brief
class FetchedRef(Struct, frozen=True):
    """A ref of ours that follows one of the remote. `old` None: it is new; `new` None: pruned."""

    name: str
    old: ObjectId | None
    new: ObjectId | None


@brief
class Fetched(Struct, frozen=True):
    """What a fetch did.

    refs    those that moved; kept: tags of ours that are elsewhere at the remote, left alone
    there   the branches and tags of the remote: all, or of named branches these, and all tags
    bytes_received, packs_received   packs written here; what was there from an earlier try is not
                                     counted
    notes                            commits of which notes came
    """

    remote: str
    refs: tuple[FetchedRef, ...]
    kept: tuple[str, ...]
    there: RemoteRefs
    commits: int
    objects: int
    blocks: int
    bytes_received: int
    packs_received: int
    notes: int = 0


@brief
class FetchOptions(Struct, frozen=True):
    """What to fetch: `branches` (short names; none: all), all `tags`; `prune` what is gone.

    `reach`: how far back; None: all that is new, in a shallow clone as it was cloned.
    """

    branches: tuple[str, ...] = ()
    tags: bool = False
    prune: bool = False
    reach: Reach | None = None


def fetch(
    home: Home,
    remote: str,
    store: ByteStore,
    options: FetchOptions | None = None,
    *,
    pack_bytes: int = FETCH_PACK_BYTES,
    progress: Progress = SILENT,
) -> Fetched:
    """Bring branches of `store`, called `remote` here, and tags on them; refs/remotes/ follows.

    Raises RevisionNotFound (no such branch there), RemoteRefused, RemoteUnreachable, Corruption or
    MissingObject (the remote is damaged, or lies), NoSpace, Locked. Nothing is visible then; what
    came stays in quarantine, and the next attempt goes on from there.
    """
    options = options or FetchOptions()
    there = _refs_there(store, options)
    heads = _chosen(store, there, options.branches)
    tips = dict.fromkeys([*heads.values(), *(there.tags.values() if options.tags else ())])
    # Neither what it let go of, nor what was purged here, whatever it has.
    stones = read_tombstones(home.storage.store)
    pruned = read_pruned(store).without(stones, stones.snapshots)
    with home.writing(), Quarantine(home.directory, _NO_LIMIT_BYTES) as quarantine:
        commits, received, inspected = 0, Received(), Inspected()
        reach = _reach(home, remote, options)
        if _any_new(home, tips) or (reach.reaches_back and read_absent(home.storage.store)):
            quarantine.take_up()
            remote_packs = RemoteStorage(store, Index.of(home.directory, remote_index(remote)))
            try:
                fetching = _Fetch(
                    home, quarantine, remote_packs, remote, store, pruned, reach, progress
                )
                received = fetching.run(tips, Downloads(quarantine, inspected, pack_bytes))
                end = fetching.horizon
            finally:
                remote_packs.close()
            admission = Admission(
                home.storage,
                quarantine,
                inspected=inspected,
                pruned=pruned.but_absent(end.absent),
                threads=home.threads,
                progress=progress,
            )
            admission.verify([*tips, *end.more], home.refs.list().values())
            with home.refs.locked():
                commits = admission.publish().commits
                # Before a ref names what leans on it; after a kill it is said of nothing.
                change_absent(home.storage.store, gone=end.gone, here=end.here)
                follow_pruned(home, store)
                with home.refs.together():
                    moved, kept = _move_refs(home, remote, there, heads, options)
        else:
            if home.storage.promises.remote == remote:
                follow_pruned(home, store)
            with home.refs.together():
                moved, kept = _move_refs(home, remote, there, heads, options)
    return Fetched(
        remote=remote,
        refs=tuple(moved),
        kept=tuple(kept),
        there=there,
        commits=commits,
        objects=received.objects,
        blocks=received.blocks,
        bytes_received=received.bytes,
        packs_received=received.packs,
        notes=fetch_notes(home, store, heads.values() if options.branches else None),
    )


def _refs_there(store: ByteStore, options: FetchOptions) -> RemoteRefs:
    """The refs of the remote that a fetch is about: of few branches, no others are asked for."""
    if options.prune or not options.branches:
        return read_refs(store)
    return read_some_refs(store, map(_full_name, options.branches), tags=True)


def _full_name(branch: str) -> str:
    return branch if branch.startswith(HEADS) else HEADS + branch


def _chosen(store: ByteStore, there: RemoteRefs, branches: Sequence[str]) -> dict[str, ObjectId]:
    """The branches to fetch, by full name. Raises RevisionNotFound."""
    if not branches:
        return there.branches
    chosen = {}
    for branch in branches:
        name = _full_name(branch)
        if name not in there.values:
            known = ", ".join(short_name(one) for one in first_branches(store, 10))
            raise RevisionNotFound(
                f"the remote has no branch {quoted(branch)}",
                f"it has {known}" if known else "it has none at all",
            )
        chosen[name] = there.values[name]
    return chosen


def _reach(home: Home, remote: str, options: FetchOptions) -> Reach:
    if options.reach is not None:
        return options.reach
    settings = home.config.remote.get(remote)
    return Reach(follow=settings.depth or None) if settings is not None else Reach()


def _any_new(home: Home, tips: Iterable[ObjectId]) -> bool:
    """Whether any tip is not certainly here: what our refs reach is whole."""
    here = set(home.refs.list().values())
    return any(tip not in here for tip in tips)


class _Fetch:
    """Brings into quarantine what commits need and neither it nor the store has."""

    def __init__(
        self,
        home: Home,
        quarantine: Quarantine,
        remote: RemoteStorage,
        name: str,
        store: ByteStore,
        pruned: Pruned,
        reach: Reach,
        progress: Progress,
    ) -> None:
        self._pruned = pruned
        self._reach = reach
        self.horizon = Horizon()
        self._home = home
        self._quarantine = quarantine
        self._remote = remote
        self._name = name
        self._store = store
        self._progress = progress

    def run(self, tips: Collection[ObjectId], downloads: Downloads) -> Received:
        self._home.storage.refresh()
        self._quarantine.storage.refresh()
        here = layered(self._home.storage, self._quarantine.storage)
        objects = FarObjects(here, self._remote, everything=len(tips) > _MANY_TIPS)
        known = list(self._home.refs.list().values())
        self.horizon = self._end(objects, list(tips), known)
        with downloads:
            wanted = [*tips, *self.horizon.more]
            expected = self._objects(here, objects, wanted, known, downloads)
            downloads.close()  # a cut from here on need not read them again
            self._seek_blocks(here, objects, expected)
            blocks = BlockDownload(here, self._remote, self._store, downloads, self._progress)
            blocks.run(expected, self._room)
            downloads.close()
            return downloads.received

    def _end(
        self, objects: FarObjects, tips: Sequence[ObjectId], known: Sequence[ObjectId]
    ) -> Horizon:
        """Where this fetch ends; nowhere, unless a depth is asked for, or history is cut off."""
        ours, theirs = read_absent(self._home.storage.store), self._pruned.absent
        if not (ours or theirs) and self._reach in (Reach(), Reach(whole=True)):
            return Horizon()
        here = {commit for commit, _ in reachable_commits(self._home.objects, known)}
        read = functools.cache(objects.commit)
        return horizon(read, tips, self._reach, known=here, ours=ours, theirs=theirs)

    def _seek_blocks(
        self, here: Storage, objects: FarObjects, expected: Mapping[BlockId, int]
    ) -> None:
        """Know where the blocks are that are not here.

        In a lazy clone of this remote, have the promise of their packs: they are no news then.
        Every one of them is compared with its id when it comes.
        """
        missing = here.ask(functools.partial(lacking, ids=list(expected)))
        objects.seek(missing)
        promises = self._home.storage.promises
        if missing and promises.remote == self._name:
            promises.promise(self._store, self._remote.packs_of(missing))
            self._home.storage.refresh()

    def _objects(
        self,
        here: Storage,
        objects: FarObjects,
        tips: Sequence[ObjectId],
        known: Sequence[ObjectId],
        downloads: Downloads,
    ) -> dict[BlockId, int]:
        """Walk the closure as it comes; returns the lengths of the blocks it needs."""
        new = commits_between(objects, tips, known, self.horizon.absent)
        expected: dict[BlockId, int] = {}
        for needed in objects_of(
            objects,
            new.commits,
            known_objects(objects, new.boundary),
            self._pruned.but_absent(self.horizon.absent),
            alone=self.horizon.alone,
        ):
            if here.ask(functools.partial(_lacks, identity=needed.id)):
                downloads.add_object(needed.canonical)
            if isinstance(needed.record, Tensor):
                for use in blocks_of(needed.record, f"tensor {needed.id.hex()}"):
                    if expected.setdefault(use.id, use.length) != use.length:
                        raise Corruption(
                            f"tensor {needed.id.hex()}: block {use.id.hex()} has another length "
                            "elsewhere"
                        )
        return expected

    def _room(self) -> int:
        return shutil.disk_usage(located(self._home.directory, PACKS)).free


def _lacks(view: View, identity: ObjectId) -> bool:
    return view.object(identity) is None


def _move_refs(
    home: Home,
    remote: str,
    there: RemoteRefs,
    heads: Mapping[str, ObjectId],
    options: FetchOptions,
) -> tuple[list[FetchedRef], list[str]]:
    """Let refs/remotes/<remote>/ and tags follow; the repository's `lock` is held."""
    who, why = home.signature(), f"fetch: {remote}"
    moved: list[FetchedRef] = []
    if options.prune:
        folder = f"{REMOTES}{remote}/"
        wanted = {tracking_ref(remote, name) for name in there.branches}
        for name in home.refs.names(folder):
            if name not in wanted:
                old = home.refs.delete(name, expected=ANY, who=who, why=why)
                moved.append(FetchedRef(name, old, None))
    for name, tip in heads.items():
        ours = tracking_ref(remote, name)
        assert ours is not None
        old = home.refs.update(ours, tip, expected=ANY, who=who, why=why)
        if old != tip:
            moved.append(FetchedRef(ours, old, tip))
    kept: list[str] = []
    for name, tip in _tags(home, there, heads, options).items():
        old = home.refs.read(name)
        if old is None:
            home.refs.update(name, tip, expected=None, who=who, why=why)
            moved.append(FetchedRef(name, None, tip))
        elif old != tip:
            kept.append(name)
    return moved, kept


def _tags(
    home: Home, there: RemoteRefs, heads: Mapping[str, ObjectId], options: FetchOptions
) -> dict[str, ObjectId]:
    """Tags that follow: all, or those on commits that the branches bring."""
    if options.tags or not there.tags:
        return there.tags
    present = {name: at for name, at in there.tags.items() if home.refs.read(name) == at}
    if len(present) == len(there.tags):
        return {}
    brought = {commit for commit, _ in reachable_commits(home.objects, heads.values())}
    return {name: at for name, at in there.tags.items() if at in brought}
