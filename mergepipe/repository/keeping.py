"""What keeps a commit, an object, a block or a pack: the roots that gc would find it from."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from msgspec import Struct

from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.records import Commit, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.reader import read_footer
from mergepipe.packs.storage import Storage
from mergepipe.repository.closure import closure
from mergepipe.repository.grace import Grace, lately_pruned, models_of
from mergepipe.repository.notes import noted_commits
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.purge_scope import above, known_commits
from mergepipe.repository.refnames import HEADS, IMPORTS, REMOTES, TAGS, short_name
from mergepipe.repository.refs import HEAD, RefStore
from mergepipe.repository.roots import checked_out
from mergepipe.repository.tombstones import day_of, read_stones
from mergepipe.repository.waiting import waiting

_KINDS = {HEADS: "branch", TAGS: "tag", REMOTES: "remote", IMPORTS: "import"}


class Keeper(Struct, frozen=True):
    """A root, and how it comes to what is asked for.

    kind   branch, tag, remote, import, HEAD, reflog, worktree, lease, plan, grace
    name   of the ref, with the number of the move for a reflog: `main@{3}`; of grace, until when
    at     where it stands; via: the commit whose model, profile or manifest needs it
    """

    kind: str
    name: str
    at: ObjectId
    via: ObjectId


class Kept(Struct, frozen=True):
    """Why something is kept. `leaned_on`: only as what blocks of these commits lean on.

    mentioned  what names it and keeps nothing: run, note, tombstone, operation (of mp undo)
    """

    keepers: tuple[Keeper, ...]
    leaned_on: bool
    mentioned: tuple[str, ...]


def why_kept(
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    ids: Collection[bytes],
    leases: Iterable[tuple[str, Iterable[ObjectId]]] = (),
    young: Mapping[PackId, float] | None = None,
    grace: Grace | None = None,
) -> Kept:
    """What keeps any of some ids (of commits, objects, blocks). `leases`: who needs what now.

    `grace`: what is younger stays, and `young` are such packs. Without keepers, the next
    gc frees them. Raises Corruption.
    """
    hanging = [*_roots(refs, storage, leases)]
    commits = known_commits(objects, [at for _, _, at in hanging])
    holders = _holders(storage, objects, commits, ids)
    leaned_on = False
    if not holders:
        leaning = _leaning(storage, ids)
        holders = _holders(storage, objects, commits, leaning) if leaning else {}
        leaned_on = bool(holders)
    reaching = {each: above(commits, [each]) for each in holders}
    keepers = []
    for kind, name, at in hanging:
        # Of several, the one that it stands at itself, or else the first.
        ways = [each for each, users in reaching.items() if at in users]
        if at in ids or ways:
            keepers.append(Keeper(kind, name, at, at if at in ids or at in ways else ways[0]))
    models = {commit.snapshot for each, commit in commits.items() if each in ids}
    keepers += [
        Keeper("plan", plan.hex()[:12], plan, plan)
        for plan in waiting(storage.store)
        if plan in ids or any(_reached(objects, plan, {*ids, *models}))
    ]
    if grace is not None:
        keepers += _by_age(storage, objects, ids, young or {}, grace, alone=not keepers)
    return Kept(tuple(keepers), leaned_on, tuple(_mentioned(storage, refs, ids)))


def _by_age(
    storage: Storage,
    objects: ObjectStore,
    ids: Collection[bytes],
    young: Mapping[PackId, float],
    grace: Grace,
    *,
    alone: bool,
) -> list[Keeper]:
    """What grace keeps, and until when: what is in young packs or was pruned lately.

    What only these need is looked for if nothing else keeps it, `alone`, as it takes a walk.
    """
    lately = lately_pruned(read_pruned(storage.store), grace)
    times: dict[bytes, float] = {}
    for pack, at in young.items():
        for held in _held(storage, pack):
            times[held] = max(at, times.get(held, 0.0))
    for commit, when in lately.items():
        times |= dict.fromkeys(models_of([commit], objects), when)
    kept = [(each, times[each]) for each in ids if each in times]
    if alone and not kept:
        kept = [
            (root, at)
            for root, at in times.items()
            if objects.has(ObjectId(root)) and any(_reached(objects, ObjectId(root), ids))
        ][:1]
    if not kept:
        return []
    identity, at = max(kept, key=lambda each: each[1])
    until = day_of(int(at + grace.length_s))
    return [Keeper("grace", f"until {until}", ObjectId(identity), ObjectId(identity))]


def _roots(
    refs: RefStore, storage: Storage, leases: Iterable[tuple[str, Iterable[ObjectId]]]
) -> Iterator[tuple[str, str, ObjectId]]:
    """Every root: what kind it is, its name, and where it stands."""
    for name, at in refs.list().items():
        kind = next((kind for folder, kind in _KINDS.items() if name.startswith(folder)), "ref")
        yield kind, short_name(name), at
    head = refs.head()
    if head.commit is not None and head.branch is None:
        yield "HEAD", HEAD, head.commit
    if refs.reflog is not None:
        for name in refs.reflog.names():
            seen: set[ObjectId] = set()
            for number, entry in enumerate(refs.reflog.read(name)):
                for stood, moves in ((entry.new, number), (entry.old, number + 1)):
                    if stood is not None and stood not in seen:
                        seen.add(stood)
                        yield "reflog", f"{short_name(name)}@{{{moves}}}", stood
    for at in checked_out(storage.store):
        yield "worktree", "worktree", at
    for command, needs in leases:
        for at in needs:
            yield "lease", command, at


def _holders(
    storage: Storage,
    objects: ObjectStore,
    commits: dict[ObjectId, Commit],
    ids: Collection[bytes],
) -> dict[ObjectId, Commit]:
    """Commits that are asked for, or whose own model, profile or manifest needs one of `ids`."""
    pruned = read_pruned(storage.store)
    needing: dict[ObjectId, bool] = {}

    def needs(root: ObjectId | None) -> bool:
        if root is None:
            return False
        if root not in needing:
            needing[root] = any(_reached(objects, root, ids))
        return needing[root]

    return {
        identity: commit
        for identity, commit in commits.items()
        if identity in ids
        or (
            identity not in pruned
            and commit.snapshot not in pruned.gone
            and (needs(commit.snapshot) or needs(commit.profile) or needs(commit.manifest))
        )
    }


def _reached(objects: ObjectStore, root: ObjectId, ids: Collection[bytes]) -> Iterator[bool]:
    references = [Reference(root, None, "root")]
    for needed in closure(references, objects, known={}, complain=lambda use, error: None):
        if needed.id in ids:
            yield True
        elif isinstance(needed.record, Tensor):
            yield not ids_of(needed.record).isdisjoint(ids)


def ids_of(tensor: Tensor) -> frozenset[bytes]:
    """The blocks of a tensor."""
    return frozenset(tensor.block_ids())


def _leaning(storage: Storage, ids: Collection[bytes]) -> set[bytes]:
    """Blocks that are stored as their difference from one of `ids`, directly or not."""
    with storage.view() as view:
        pairs = [(at.header.id, at.header.base) for at in view.blocks()]
    leaning: set[bytes] = set(ids)
    while True:
        more = {block for block, base in pairs if base in leaning} - leaning
        if not more:
            return leaning - set(ids)
        leaning |= more


def _held(storage: Storage, pack: PackId) -> list[bytes]:
    with suppress(Corruption, FileNotFoundError):
        return [header.id for header, _ in read_footer(storage.store, pack)[1]]
    return []


def _mentioned(storage: Storage, refs: RefStore, ids: Collection[bytes]) -> Iterator[str]:
    for key in storage.store.list("runs/"):
        name = key.removeprefix("runs/").removesuffix(".json")
        with suppress(ValueError):
            if bytes.fromhex(name) in ids:
                yield f"run {name[:12]}"
    for commit in noted_commits(storage.store):
        if commit in ids:
            yield f"note on {commit.hex()[:12]}"
    for operation in refs.operations.read() if refs.operations is not None else ():
        moved = {value for move in operation.moves.values() for value in (move.old, move.new)}
        if any(each.hex() in moved or each in operation.pruned for each in ids):
            yield f"operation {operation.id[:6]} (mp undo)"
    with suppress(Corruption):
        for stone in read_stones(storage.store)[0].values():
            if stone.commit in ids or stone.snapshot in ids:
                yield f"tombstone of {stone.commit.hex()[:12]} ({stone})"
