"""What a purge takes, and what it leaves: the blocks that only the purged models hold."""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from mergepipe.dtypes import DType
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import BlockUse, blocks_of
from mergepipe.objects.merging import Manifest, Profile
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.repository.closure import Complaint, Needed, closure
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.refs import RefStore
from mergepipe.repository.roots import roots


class Sharer(Struct, frozen=True):
    """A model that is kept and holds blocks of the purged ones; `commit` is where it was found."""

    commit: ObjectId | None
    snapshot: ObjectId
    blocks: int
    raw_bytes: int


class Scope(Struct):
    """What goes and what stays. Blocks by id, with what a tensor says of them.

    commits    every commit of the purged models
    own        blocks that no model which is kept holds; objects: what else goes, profiles too
    kept       blocks of all models that are kept
    sharers    who keeps blocks of the purged models that are not their own
    merges     commits that are kept, and were merged of the purged models
    holders    commits that have a purged one in their history, or are one
    """

    snapshots: frozenset[ObjectId]
    commits: dict[ObjectId, Commit] = field(default_factory=dict)
    tensors: int = 0
    raw_bytes: int = 0
    blocks: dict[BlockId, BlockUse] = field(default_factory=dict)
    own: dict[BlockId, BlockUse] = field(default_factory=dict)
    objects: set[ObjectId] = field(default_factory=set)
    profiles: set[ObjectId] = field(default_factory=set)
    kept: dict[BlockId, DType] = field(default_factory=dict)
    sharers: tuple[Sharer, ...] = ()
    merges: dict[ObjectId, Commit] = field(default_factory=dict)
    holders: set[ObjectId] = field(default_factory=set)

    @property
    def scrub(self) -> frozenset[bytes]:
        """Every id of which no record is to stay."""
        return frozenset[bytes](self.own) | frozenset[bytes](self.objects)


def purge_scope(
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    snapshots: Iterable[ObjectId],
    commits: Iterable[ObjectId] = (),
) -> Scope:
    """What purging some models means here, where they may be in part, or not at all.

    `commits` are told beside those that hold the models. Raises Corruption where something that
    is kept is damaged: what it shares with them cannot be known then.
    """
    scope = Scope(frozenset(snapshots))
    hanging = roots(refs, storage.store)
    known = known_commits(objects, [*hanging.required, *hanging.optional, *commits])
    scope.commits = {
        identity: commit
        for identity, commit in known.items()
        if commit.snapshot in scope.snapshots or identity in set(commits)
    }
    scope.holders = above(known, scope.commits)
    purged = _models(objects, scope.snapshots)
    scope.tensors = len(purged)
    for tensor, uses in purged.items():
        scope.objects.add(tensor)
        scope.blocks.update({use.id: use for use in uses})
    scope.objects |= {each for each in scope.snapshots if objects.has(each)}
    scope.raw_bytes = sum(use.length for use in scope.blocks.values())
    scope.profiles = {
        commit.profile for commit in scope.commits.values() if commit.profile is not None
    }
    kept = _Kept(storage, objects, scope)
    kept.follow(hanging.required, None)
    kept.follow(hanging.optional, lambda use, error: None)
    scope.own = {block: use for block, use in scope.blocks.items() if block not in scope.kept}
    scope.objects = (scope.objects | scope.profiles) - kept.objects.keys()
    scope.sharers = kept.sharers()
    scope.merges = {
        identity: commit
        for identity, commit in known.items()
        if identity not in scope.commits
        and commit.manifest is not None
        and _merged_of(objects, commit.manifest, scope.snapshots)
    }
    return scope


def known_commits(objects: ObjectStore, tips: Iterable[ObjectId]) -> dict[ObjectId, Commit]:
    """Every commit that some ids need, as far as they are commits, and here."""
    known: dict[ObjectId, Commit] = {}
    todo, seen = list(tips), set(tips)
    while todo:
        identity = todo.pop()
        try:
            if objects.kind(identity) != Commit.KIND:
                continue
            commit = known[identity] = objects.commit(identity)
        except Corruption:
            continue
        todo += [each for each in commit.needed if each not in seen]
        seen.update(commit.needed)
    return known


def above(commits: Mapping[ObjectId, Commit], below: Iterable[ObjectId]) -> set[ObjectId]:
    """Some commits and all that need them."""
    children: dict[ObjectId, list[ObjectId]] = {}
    for identity, commit in commits.items():
        for each in commit.needed:
            children.setdefault(each, []).append(identity)
    above, todo = set(below), list(below)
    while todo:
        news = [each for each in children.get(todo.pop(), ()) if each not in above]
        above.update(news)
        todo += news
    return above


def _models(
    objects: ObjectStore, snapshots: Iterable[ObjectId]
) -> Mapping[ObjectId, tuple[BlockUse, ...]]:
    """The tensors of some snapshots with their blocks, as far as they are here."""
    tensors: dict[ObjectId, tuple[BlockUse, ...]] = {}
    references = (Reference(each, Snapshot.KIND, "snapshot") for each in snapshots)
    for needed in closure(references, objects, known={}, complain=lambda use, error: None):
        if isinstance(needed.record, Tensor):
            tensors[needed.id] = tuple(blocks_of(needed.record, f"tensor {needed.id.hex()}"))
    return tensors


def _merged_of(objects: ObjectStore, manifest: ObjectId, snapshots: frozenset[ObjectId]) -> bool:
    try:
        return not snapshots.isdisjoint(objects.load(manifest, Manifest).models)
    except Corruption:
        return False


class _Kept:
    """The walk over what stays."""

    def __init__(self, storage: Storage, objects: ObjectStore, scope: Scope) -> None:
        self._objects = objects
        self._scope = scope
        self._pruned = read_pruned(storage.store).without(scope.commits, scope.snapshots)
        self._shared: dict[ObjectId, dict[BlockId, int]] = {}
        self._snapshots: dict[ObjectId, tuple[ObjectId | None, tuple[ObjectId, ...]]] = {}
        self.objects: dict[ObjectId, str] = {}

    def follow(self, tips: Iterable[ObjectId], complain: Complaint | None) -> None:
        """Take in what some roots need."""
        references = (
            Reference(tip, None, "root") for tip in tips if tip not in self._scope.snapshots
        )
        for needed in closure(
            references, self._objects, known=self.objects, pruned=self._pruned, complain=complain
        ):
            self._note(needed)

    def _note(self, needed: Needed) -> None:
        record = needed.record
        if isinstance(record, Profile) and record.snapshot in self._scope.snapshots:
            self._scope.profiles.add(needed.id)  # only plans name it
            return
        self.objects[needed.id] = needed.kind
        if isinstance(record, Snapshot):
            self._snapshots[needed.id] = (needed.use.commit, tuple(record.tensor_ids()))
        elif isinstance(record, Tensor):
            uses = blocks_of(record, f"tensor {needed.id.hex()}")
            shared: dict[BlockId, int] = {}
            for use in uses:
                self._scope.kept.setdefault(use.id, use.dtype)
                if use.id in self._scope.blocks:
                    shared[use.id] = use.length
            if shared:
                self._shared[needed.id] = shared

    def sharers(self) -> tuple[Sharer, ...]:
        """Which models keep blocks of the purged ones."""
        told = []
        for snapshot, (commit, tensors) in self._snapshots.items():
            blocks: dict[BlockId, int] = {}
            for tensor in tensors:
                blocks |= self._shared.get(tensor, {})
            if blocks:
                told.append(Sharer(commit, snapshot, len(blocks), sum(blocks.values())))
        return tuple(told)
