"""Revisions as people type them, in git's grammar (gitrevisions(7)).

main   v1   origin/main   refs/heads/main   HEAD   @   3fa9c2   main~2   v1^2   main@{1}   @{1}
main@{yesterday}   main@{2 weeks ago}   main@{2026-11-22 18:00}
"""

import difflib
import re
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from mergepipe.errors import AmbiguousRevision, InvalidRefName, MissingObject, RevisionNotFound
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.objects.records import Commit
from mergepipe.repository.dates import Clock, parse_moment
from mergepipe.repository.reflog import ReflogEntry, settled
from mergepipe.repository.refnames import (
    BEFORE,
    HEADS,
    IMPORTS,
    REMOTES,
    TAGS,
    WAS_BEFORE,
    check_ref_name,
    short_name,
)
from mergepipe.repository.refs import HEAD, RefStore

SHORTEST_PREFIX = 4
_MOST_CANDIDATES = 100
_LISTED_CANDIDATES = 8
_MOST_COMPARED = 5000  # names that are compared with one that is not there
_HEX = re.compile(rf"[0-9a-fA-F]{{{SHORTEST_PREFIX},{2 * ID_BYTES}}}")
# Numbers of at most nine digits: nobody counts further back, and `~9...9` costs no memory.
# As transformers takes them, and as no branch is called that anybody has.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")
_COUNT = re.compile(r"[0-9]{1,8}")
_NAME = re.compile(
    r"(?P<name>(?:(?!@\{)[^~^:])*)(?:@\{(?P<entry>[^{}]{1,64})\})?(?P<steps>.*)", re.S
)
_STEP = re.compile(r"\^\{(?:commit)?\}|(?P<kind>[~^])(?P<count>[0-9]{1,9})?")
# Where git looks for a name, in this order; imports are ours, and last.
_PLACES = (
    "refs/{}",
    "refs/tags/{}",
    "refs/heads/{}",
    "refs/remotes/{}",
    "refs/remotes/{}/HEAD",
    IMPORTS + "{}",
)


class HistoryEnds(RevisionNotFound):
    """A step goes behind what history has; in a shallow clone, behind what it has here."""

    kind = RevisionNotFound.kind


class History(Protocol):
    """What revisions need of the object store."""

    def commit(self, object_id: ObjectId, /) -> Commit:
        """The commit with this id. Raises MissingObject."""
        ...

    def kind(self, object_id: ObjectId, /) -> str:
        """What kind of object this is. Raises MissingObject."""
        ...

    def find_prefix(self, hex_prefix: str, limit: int) -> list[ObjectId]:
        """At most `limit` objects whose hex id begins with `hex_prefix`."""
        ...


class Ancestor(Struct, frozen=True):
    """`~N`: N first parents back."""

    count: int


class Parent(Struct, frozen=True):
    """`^N`: the Nth parent, from 1; the commit itself for 0."""

    number: int


Step: TypeAlias = Ancestor | Parent


class Revision(Struct, frozen=True):
    """A parsed revision: a name, perhaps where it was `entry` moves ago or at a moment, steps."""

    name: str
    entry: int | str | None
    steps: tuple[Step, ...]


def parse(text: str) -> Revision:
    """The parts of a revision. Raises RevisionNotFound for text that is none."""
    match = _NAME.fullmatch(text)
    if match is None or not (match["name"] or match["entry"]):
        raise _unreadable(text)
    steps: list[Step] = []
    rest = match["steps"]
    while rest:
        step = _STEP.match(rest)
        if step is None:
            raise _unreadable(text)
        if step["kind"] is not None:
            count = 1 if step["count"] is None else int(step["count"])
            steps.append(Ancestor(count) if step["kind"] == "~" else Parent(count))
        rest = rest[step.end() :]
    entry = match["entry"]
    counted = entry is not None and _COUNT.fullmatch(entry) is not None
    return Revision(match["name"], int(entry) if counted else entry, tuple(steps))


class Range(Struct, frozen=True):
    """What `A..B` stands for: the history of `among`, without what is in that of all of a group.

    Each of `hidden` is such a group of revisions.
    """

    among: tuple[str, ...]
    hidden: tuple[tuple[str, ...], ...] = ()


def parse_range(text: str) -> Range:
    """`A`, `A..B` or `A...B`, where an empty side is HEAD. Names cannot hold two dots."""
    for dots in ("...", ".."):
        before, separator, after = text.partition(dots)
        if separator and not _braced(before):
            a, b = before or HEAD, after or HEAD
            return Range((b,), ((a,),)) if dots == ".." else Range((a, b), ((a, b),))
    return Range((text,))


def _braced(text: str) -> bool:
    """Whether what follows stands within `@{...}`."""
    return text.rfind("@{") > text.rfind("}")


def resolve(
    text: str,
    refs: RefStore,
    objects: History,
    kinds: Sequence[str] = ("commit",),
    clock: Clock | None = None,
) -> ObjectId:
    """The id of the object that a revision names, of one of these `kinds`.

    `clock` is what `main@{yesterday}` is measured from; without it moves can only be counted.
    Raises RevisionNotFound, AmbiguousRevision (a prefix of several ids), Corruption (a damaged
    ref, or a commit that history needs and nobody has).
    """
    revision = parse(text)
    if revision.steps:
        kinds = ("commit",)
    if revision.entry is None:
        identity = _named(text, revision.name, refs, objects, kinds)
    else:
        identity = _logged(text, revision.name, revision.entry, refs, clock)
    for step in revision.steps:
        identity = _step(text, identity, step, objects)
    return identity


def find_ref(name: str, refs: RefStore) -> str | None:
    """The full name of the ref that `name` means, looked for in git's order; None if none."""
    if name in (HEAD, "@"):
        return HEAD
    for candidate in (name, *(place.format(name) for place in _PLACES)):
        try:
            check_ref_name(candidate)
        except InvalidRefName:
            continue
        if refs.read(candidate) is not None:
            return candidate
    return None


def _named(
    text: str, name: str, refs: RefStore, objects: History, kinds: Sequence[str]
) -> ObjectId:
    if len(name) == 2 * ID_BYTES and _HEX.fullmatch(name):
        return _whole_id(text, ObjectId(bytes.fromhex(name)), objects, kinds)
    ref = find_ref(name, refs)
    if ref is not None:
        tip = refs.read(ref)
        if tip is None:
            branch = refs.head().branch or HEAD
            lost = refs.reflog is not None and bool(refs.reflog.read(branch))
            raise RevisionNotFound(
                f"{text!r}: there is no commit yet on {short_name(branch)!r}",
                "it has a log: mp fsck tells where it was, and --repair puts it back"
                if lost
                else "make the first one with `mp commit`",
            )
        return tip
    if _HEX.fullmatch(name):
        tip = _by_prefix(text, name.lower(), objects, kinds)
        if tip is not None:
            return tip
    raise _not_found(text, name, refs)


def _whole_id(text: str, object_id: ObjectId, objects: History, kinds: Sequence[str]) -> ObjectId:
    try:
        kind = objects.kind(object_id)
    except MissingObject as error:
        raise RevisionNotFound(f"no object has the id {object_id.hex()}") from error
    if kind not in kinds:
        raise RevisionNotFound(f"{text!r} is a {kind}, not a {' or '.join(kinds)}")
    return object_id


def _by_prefix(text: str, prefix: str, objects: History, kinds: Sequence[str]) -> ObjectId | None:
    candidates = objects.find_prefix(prefix, _MOST_CANDIDATES)
    fitting = [candidate for candidate in candidates if objects.kind(candidate) in kinds]
    # What fits the use wins, as in git: `mp log 3fa9` means a commit.
    if len(fitting) == 1 and len(candidates) < _MOST_CANDIDATES:
        return fitting[0]
    if fitting or len(candidates) >= _MOST_CANDIDATES:
        listed = [
            f"{object_id.hex()[:16]} {objects.kind(object_id)}"
            for object_id in fitting[:_LISTED_CANDIDATES]
        ]
        more = "" if len(fitting) <= _LISTED_CANDIDATES else ", ..."
        raise AmbiguousRevision(
            f"{text!r} could be any of {len(fitting)}: {', '.join(listed)}{more}",
            "write more digits of the id",
        )
    if candidates:
        raise RevisionNotFound(
            f"{text!r} is a {objects.kind(candidates[0])}, not a {' or '.join(kinds)}"
        )
    return None


def _logged(
    text: str, name: str, entry: int | str, refs: RefStore, clock: Clock | None
) -> ObjectId:
    # `@{1}` is about the branch that is current now, `HEAD@{1}` about HEAD itself.
    ref = (refs.head().branch or HEAD) if not name else find_ref(name, refs)
    if ref is None:
        raise _not_found(text, name, refs)
    current = refs.read(ref)
    moves = settled(refs.reflog.read(ref), current) if refs.reflog is not None else []
    if isinstance(entry, str):
        if clock is None:
            raise _unreadable(text)
        identity = _at_moment(text, short_name(ref), parse_moment(entry, clock), moves, current)
    elif entry == 0:
        identity = current
    else:
        if entry > len(moves):
            raise RevisionNotFound(
                f"{text!r}: the reflog of {short_name(ref)} has {len(moves)} moves",
                f"`mp reflog {short_name(ref)}` lists them",
            )
        identity = moves[entry - 1].old
    if identity is None:
        raise RevisionNotFound(f"{text!r}: {short_name(ref)} pointed at no commit then")
    return identity


def _at_moment(
    text: str, name: str, moment: int, moves: Sequence[ReflogEntry], current: ObjectId | None
) -> ObjectId | None:
    """Where a ref was at a moment: where the last move before it went."""
    if not moves:
        return current
    for move in moves:  # newest first
        if move.who.time <= moment:
            return move.new
    raise RevisionNotFound(
        f"{text!r}: the reflog of {name} begins later", f"`mp reflog {name}` lists its moves"
    )


def _step(text: str, start: ObjectId, step: Step, objects: History) -> ObjectId:
    if isinstance(step, Parent):
        if step.number == 0:
            return start
        parents = objects.commit(start).parents
        if step.number > len(parents):
            has = "no parents" if not parents else f"{len(parents)} parent(s)"
            at = start.hex()[:12]
            raise HistoryEnds(
                f"{text!r}: commit {at} has {has}", f"`mp show {at}` lists its parents"
            )
        return parents[step.number - 1]
    for _ in range(step.count):
        parents = objects.commit(start).parents
        if not parents:
            raise HistoryEnds(
                f"{text!r}: history ends at {start.hex()[:12]}, which has no parents",
                "`mp log` shows how far it goes",
            )
        start = parents[0]
    return start


def _unreadable(text: str) -> RevisionNotFound:
    return RevisionNotFound(
        f"not a revision: {text!r}",
        "write a branch, tag, HEAD, main~2, v1^2, main@{1}, main@{yesterday} or an id",
    )


def _not_found(text: str, name: str, refs: RefStore) -> RevisionNotFound:
    crowded = refs.more_than(_MOST_COMPARED)
    ours = () if crowded else (*refs.names(HEADS), *refs.names(TAGS))
    names = [short_name(ref) for ref in ours]
    near = [] if crowded else difflib.get_close_matches(name, names or [HEAD], 1)
    there = [] if crowded else [short_name(ref) for ref in refs.names(REMOTES)]
    same = [each for each in there if each.partition("/")[2] == name]
    if text == BEFORE:
        hint = WAS_BEFORE
    elif removed := _removed(name, refs):
        ref, at = removed
        kind = "tag" if ref.startswith(TAGS) else "branch"
        hint = f"it was removed: `mp {kind} {name} {at.hex()[:12]}` brings it back"
    elif same:
        hint = f"there is {same[0]}: `mp branch {name} {same[0]}` makes one here of it"
    elif near := near or _near_there(name, there):
        hint = f"did you mean {near[0]}?"
    else:
        hint = "`mp branch --all` and `mp tag` list what there is"
        if _HUB_NAME.fullmatch(text):
            hint += f"; a model of the Hugging Face hub: mp commit hf://{text}"
    return RevisionNotFound(f"no branch, tag or commit is called {text!r}", hint)


def _removed(name: str, refs: RefStore) -> tuple[str, ObjectId] | None:
    """The branch or tag of this name that its log says was removed, and where it was."""
    for ref in (HEADS + name, TAGS + name):
        try:
            check_ref_name(ref)
        except InvalidRefName:
            continue
        last = next(iter(refs.reflog.read(ref)), None) if refs.reflog is not None else None
        if last is not None and last.new is None and last.old is not None:
            return ref, last.old
    return None


def _near_there(name: str, there: Sequence[str]) -> list[str]:
    """The branch of a remote, as `origin/x`, whose own part is most like `name`, or its end."""
    remote, _, branch = name.partition("/")
    among = [each for each in there if each.startswith(f"{remote}/")]
    wanted = branch if among else name
    ends = {each.partition("/")[2]: each for each in among or there}
    return [ends[near] for near in difflib.get_close_matches(wanted, ends, 1)]
