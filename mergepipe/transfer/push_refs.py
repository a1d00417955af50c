"""Which refs a push moves, from where to where, and whether it may."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from mergepipe.errors import RefMoved, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.store import ObjectStore
from mergepipe.repository.history import is_ancestor
from mergepipe.repository.refnames import HEADS, TAGS, branch_ref, check_ref_name, short_name, title
from mergepipe.repository.refs import RefStore
from mergepipe.repository.revisions import resolve
from mergepipe.transfer.remote_refs import tracking_ref

# A ref of the other side, where it should be, and whether `+` forces it.
_Asked: TypeAlias = tuple[str, ObjectId | None, bool]


class Wanted(Struct, frozen=True):
    """A ref of the other side (full name) and where it should be; None: nowhere.

    `lease`: move it only if it is there now (`Lease.at`), then whatever it was.
    """

    name: str
    new: ObjectId | None
    force: bool = False
    lease: "Lease | None" = None


class Lease(Struct, frozen=True):
    """Where a ref is believed to be; `at` None: it is believed not to be there."""

    at: ObjectId | None


class Move(StrEnum):
    """What a push does to a ref."""

    UNCHANGED = "unchanged"
    CREATED = "created"
    FORWARD = "fast-forward"
    FORCED = "forced"
    DELETED = "deleted"


class Decision(Struct, frozen=True):
    """A ref, where it is at the other side, where it goes, and what kind of move that is."""

    name: str
    old: ObjectId | None
    new: ObjectId | None
    move: Move


class PushOptions(Struct, frozen=True):
    """What to push.

    `refs`: names or `SOURCE:TARGET`, `+` in front forces one; none: the current branch. `leases`:
    `NAME` (where we last saw it) or `NAME:COMMIT`; `lease_all` is for every ref that is pushed.
    `release`: branches get the models of `refs` with their manifests, and no other history.
    """

    refs: tuple[str, ...] = ()
    all_branches: bool = False
    tags: bool = False
    delete: bool = False
    force: bool = False
    lease_all: bool = False
    leases: tuple[str, ...] = ()
    release: bool = False


def wanted_refs(
    options: PushOptions, refs: RefStore, objects: ObjectStore, remote: str
) -> list[Wanted]:
    """What the options ask for. `remote` names the remote whose leases count, or is empty.

    Raises UsageError, RevisionNotFound, InvalidRefName.
    """
    moves: list[_Asked]
    if options.delete:
        if not options.refs or options.all_branches or options.tags:
            raise UsageError("which branch or tag?", "mp push REMOTE --delete NAME")
        moves = [(_deleted(name, refs), None, False) for name in options.refs]
    else:
        moves = _moves(options, refs, objects)
    leases = _leases(options, refs, objects, remote)
    found: dict[str, Wanted] = {}
    for name, new, force in moves:
        lease = leases.pop(name, None)
        if lease is None and options.lease_all:
            lease = _noted(name, refs, remote)
        wanted = Wanted(name, new, force or options.force, lease)
        if found.setdefault(name, wanted).new != new:
            raise UsageError(f"{short_name(name)} cannot go to two places at once")
    if leases:
        raise UsageError(f"--lease names {', '.join(map(quoted, leases))}, which is not pushed")
    return list(found.values())


def decide(
    wanted: Iterable[Wanted], there: Mapping[str, ObjectId], objects: ObjectStore
) -> list[Decision]:
    """The move of every ref, given where they are at the other side.

    Raises RefMoved that names every ref which may not move so.
    """
    decisions: list[Decision] = []
    refused: list[tuple[str, str]] = []
    for ref in wanted:
        old = there.get(ref.name)
        move, reason = _judge(ref, old, objects)
        if reason:
            refused.append((reason, _hint(ref, old, objects)))
        decisions.append(Decision(ref.name, old, ref.new, move))
    if refused:
        raise RefMoved("; ".join(reason for reason, _ in refused), refused[0][1])
    return decisions


def _judge(ref: Wanted, old: ObjectId | None, objects: ObjectStore) -> tuple[Move, str]:
    """The move, and why it is refused (empty if it is not)."""
    if ref.lease is not None and ref.lease.at != old and old != ref.new:
        return Move.FORCED, (
            f"{title(ref.name)} of the remote is at {_at(old)}, not at {_at(ref.lease.at)} "
            "as you last saw it"
        )
    if old == ref.new:
        return Move.UNCHANGED, ""
    if old is None:
        return Move.CREATED, ""
    if ref.new is None:
        return Move.DELETED, ""
    forced = ref.force or ref.lease is not None
    if ref.name.startswith(TAGS):
        if forced:
            return Move.FORCED, ""
        return Move.FORCED, f"{title(ref.name)} of the remote is at {_at(old)}; tags do not move"
    if objects.is_here(old) and is_ancestor(objects, old, ref.new):
        return Move.FORWARD, ""
    if forced:
        return Move.FORCED, ""
    return Move.FORCED, (
        f"{title(ref.name)} of the remote is at {_at(old)}, which {_at(ref.new)} does not "
        "descend from"
    )


def _hint(ref: Wanted, old: ObjectId | None, objects: ObjectStore) -> str:
    if ref.name.startswith(TAGS):
        return "--force moves it; give a new version a tag of its own rather"
    if ref.lease is not None or (old is not None and not objects.is_here(old)):
        return "somebody else pushed: `mp fetch`, then look at what is new there"
    return "`mp fetch` and build on what is there, or replace it with --force-with-lease or --force"


def _moves(options: PushOptions, refs: RefStore, objects: ObjectStore) -> list[_Asked]:
    moves: list[_Asked] = []
    if options.all_branches:
        moves += [(name, at, False) for name, at in refs.list(HEADS).items()]
    if options.tags:
        moves += [(name, at, False) for name, at in refs.list(TAGS).items()]
    moves += [_parsed(text, refs, objects) for text in options.refs]
    if not moves and not options.all_branches and not options.tags:
        moves.append(_current(refs))
    return moves


def _current(refs: RefStore) -> _Asked:
    head = refs.head()
    if head.branch is None:
        raise UsageError("HEAD is on no branch", "name what to push: mp push REMOTE BRANCH")
    if head.commit is None:
        raise UsageError(
            f"branch {quoted(short_name(head.branch))} has no commit yet", "mp commit makes one"
        )
    return head.branch, head.commit, False


def _parsed(text: str, refs: RefStore, objects: ObjectStore) -> _Asked:
    """`name`, `source:target`, `+source:target`, `:target`."""
    force = text.startswith("+")
    source, colon, target = text.removeprefix("+").partition(":")
    if not source:
        if not target:
            raise UsageError(f"not a ref to push: {quoted(text)}", "NAME, SOURCE:TARGET or :TARGET")
        return _deleted(target, refs), None, force
    name = _local(source, refs)
    if name is not None:
        at = refs.read(name)
    elif colon or source == "HEAD":
        at = resolve(source, refs, objects)
        name = refs.head().branch if source == "HEAD" else None
    else:
        at = resolve(source, refs, objects)  # for its hint at the nearest name
        raise UsageError(
            f"{quoted(source)} is no branch or tag", f"say where it goes: {source}:BRANCH"
        )
    if colon:
        name = _target(target, name)
    if name is None:
        raise UsageError("HEAD is on no branch", "say where it goes: HEAD:BRANCH")
    return name, at, force


def _local(name: str, refs: RefStore) -> str | None:
    """The branch or tag called `name`, short or in full."""
    if name in ("HEAD", "@"):
        return None
    for full in (name, HEADS + name, TAGS + name):
        if full.startswith((HEADS, TAGS)) and _is_name(full) and refs.read(full) is not None:
            return full
    return None


def _is_name(full: str) -> bool:
    try:
        check_ref_name(full)
    except UsageError:
        return False  # `main~2` is a revision, and no name
    return True


def _target(target: str, source: str | None) -> str:
    if target.startswith((HEADS, TAGS)):
        return check_ref_name(target)
    if target.startswith("refs/"):
        raise UsageError(f"a remote takes branches and tags only, not {quoted(target)}")
    if source is not None and source.startswith(TAGS):
        return check_ref_name(TAGS + target)
    return branch_ref(target)


def _deleted(name: str, refs: RefStore) -> str:
    """The full name of what is to go: a branch, unless only a tag here is called that."""
    if name.startswith((HEADS, TAGS)):
        return check_ref_name(name)
    if not _is_name(HEADS + name):
        return branch_ref(name)  # says why
    is_tag = refs.read(HEADS + name) is None and refs.read(TAGS + name) is not None
    return (TAGS if is_tag else HEADS) + name


def _leases(
    options: PushOptions, refs: RefStore, objects: ObjectStore, remote: str
) -> dict[str, Lease]:
    leases: dict[str, Lease] = {}
    for text in options.leases:
        target, colon, value = text.partition(":")
        name = _target(target, _local(target, refs))
        if colon:
            leases[name] = Lease(resolve(value, refs, objects) if value else None)
        else:
            leases[name] = _noted(name, refs, remote)
    return leases


def _noted(name: str, refs: RefStore, remote: str) -> Lease:
    tracked = tracking_ref(remote, name) if remote else None
    if tracked is None:
        raise UsageError(
            f"nothing here says where {title(name)} of the remote was", f"--lease {name}:COMMIT"
        )
    return Lease(refs.read(tracked))


def _at(value: ObjectId | None) -> str:
    return "no commit" if value is None else value.hex()[:12]


def no_such_ref(name: str) -> RevisionNotFound:
    """What to say of a ref that was to be removed, and is not there."""
    return RevisionNotFound(f"the remote has no {title(name)}", "`mp fetch` shows what it has")
