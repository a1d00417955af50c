"""The one walk over objects: everything that some of them need, each once.

gc keeps what it finds, fsck checks it, push and fetch send and ask for it. It reads its own objects
and those that a stranger sent alike: nothing is believed of an object but what its bytes say, and
those have been hashed.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import kind_of
from mergepipe.objects.merging import Manifest, Plan, Profile
from mergepipe.objects.records import Commit, Record, Snapshot, Tensor
from mergepipe.objects.references import Reference, parse, possible_ids, references
from mergepipe.repository.pruned import NONE, Pruned


class ObjectSource(Protocol):
    """Where a walk reads objects. `objects.store.ObjectStore` is one."""

    def canonical(self, identity: ObjectId, /) -> bytes:
        """The object's bytes, their hash compared. Raises MissingObject, Corruption."""
        ...

    def present(self, candidates: Iterable[ObjectId], /) -> list[ObjectId]:
        """Those of some values that are ids of objects here, in their order."""
        ...


class Use(Struct, frozen=True):
    """How a walk came to an object: what names it (None: it is a root), and the commit above."""

    reference: Reference
    user: "Needed | None" = None
    commit: ObjectId | None = None


class Needed(Struct, frozen=True):
    """An object of a closure, with its verified bytes; `record` is None for unknown kinds."""

    id: ObjectId
    kind: str
    canonical: bytes
    record: Record | None
    use: Use


_MODELS = (Commit.KIND, Snapshot.KIND, Tensor.KIND, Profile.KIND)

Complaint: TypeAlias = Callable[[Use, Corruption], None]


def closure(
    roots: Iterable[Reference],
    objects: ObjectSource,
    *,
    known: Mapping[ObjectId, str],
    pruned: Pruned = NONE,
    inputs: bool = True,
    alone: Container[ObjectId] = frozenset(),
    check: Callable[[Needed], None] | None = None,
    complain: Complaint | None = None,
) -> Iterator[Needed]:
    """Every object that `roots` need, each once, after everything that it names itself.

    known     ids to kinds: these are there with all they need, and are neither read nor yielded
    pruned    commits whose models are not kept: of what they name, only commits are followed; what
              is `gone` or `absent` is not followed, whoever names it
    inputs    whether models are followed that plans only name, as what they merge; alone: merges
              of which they are not
    check     looks at an object before what it names is read; raises Corruption
    complain  is told of an object that is missing or wrong, and the walk goes on without it; with
              None, the first one is raised: MissingObject that says what needs it; Corruption, also
              for an object of another kind than its use says, and for a cycle

    What plans, manifests and unknown kinds name is followed as far as it is in `objects`.
    """
    yield from _Walk(objects, known, pruned, inputs, alone, check, complain).run(roots)


class _WrongKind(Corruption):
    """An object is not what its use says."""


class _Frame(Struct):
    """An object whose own needs are being walked."""

    object: Needed
    rest: Iterator[Reference]


class _Walk:
    def __init__(
        self,
        objects: ObjectSource,
        known: Mapping[ObjectId, str],
        pruned: Pruned,
        inputs: bool,
        alone: Container[ObjectId],
        check: Callable[[Needed], None] | None,
        complain: Complaint | None,
    ) -> None:
        self._objects = objects
        self._known = known
        self._pruned = pruned
        self._inputs = inputs
        self._alone = alone
        self._check = check
        self._complain = complain
        self._kinds: dict[ObjectId, str] = {}
        self._open: set[ObjectId] = set()
        self._failed: set[ObjectId] = set()
        self._path: list[_Frame] = []

    def run(self, roots: Iterable[Reference]) -> Iterator[Needed]:
        path = self._path
        for root in roots:
            self._enter(root)
            while path:
                frame = path[-1]
                for reference in frame.rest:
                    if self._enter(reference):
                        break
                else:
                    path.pop()
                    self._open.discard(frame.object.id)
                    self._kinds[frame.object.id] = frame.object.kind
                    yield frame.object

    def _enter(self, reference: Reference) -> bool:
        """Put an object on the path, unless it is known, was walked, or failed."""
        identity = reference.id
        if identity in self._failed:
            return False
        use = self._use(reference)
        try:
            kind = self._kinds.get(identity) or self._known.get(identity)
            if kind is not None:
                _check_kind(kind, use)
                return False
            if identity in self._open:
                raise Corruption(f"object {identity.hex()} is part of what it needs itself")
            needed = self._read(use)
        except Corruption as error:
            if self._complain is None:
                raise _blamed(error, use.user) from None
            if identity not in self._kinds:
                self._failed.add(identity)
            self._complain(use, error)
            return False
        self._open.add(identity)
        self._path.append(_Frame(needed, self._needs(needed)))
        return True

    def _use(self, reference: Reference) -> Use:
        if not self._path:
            return Use(reference)
        user = self._path[-1].object
        return Use(reference, user, user.id if user.kind == Commit.KIND else user.use.commit)

    def _read(self, use: Use) -> Needed:
        identity = use.reference.id
        canonical = self._objects.canonical(identity)
        kind, record = parse(canonical, f"object {identity.hex()}")
        _check_kind(kind, use)
        needed = Needed(identity, kind, canonical, record, use)
        if self._check is not None:
            self._check(needed)
        return needed

    def _needs(self, needed: Needed) -> Iterator[Reference]:
        record = needed.record
        if isinstance(record, Commit):
            record = record.without(self._pruned.absent)
        if needed.id in self._pruned or (
            isinstance(record, Commit) and record.snapshot in self._pruned.gone
        ):
            history = (each for each in references(record) if each.kind == Commit.KIND)
            yield from history
            return
        yield from references(record)
        possible = self._possible(needed)
        if possible:
            role = f"{needed.kind} object {needed.id.hex()[:12]}"
            alone = not self._inputs or needed.use.commit in self._alone
            for other in self._objects.present(possible):
                if alone and kind_of(self._objects.canonical(other)) in _MODELS:
                    continue
                yield Reference(other, None, role)

    def _possible(self, needed: Needed) -> Sequence[ObjectId]:
        """What an object may name besides, without what is gone for good.

        A plan names tensors of its models, too. Where one of these is gone, only the others' own
        snapshots count, which have all of theirs.
        """
        possible = possible_ids(needed.record, needed.canonical)
        gone, record = self._pruned.gone, needed.record
        if not gone:
            return possible
        kept = [each for each in possible if each not in gone]
        if not isinstance(record, Plan | Manifest) or gone.isdisjoint(record.models):
            return kept
        whole = {*record.models, record.layout}
        if isinstance(record, Manifest):
            whole |= {record.plan, record.output}
        else:
            whole |= {
                each.profile for each in record.profiles if record.models[each.model] not in gone
            }
        return [each for each in kept if each in whole]


def _check_kind(kind: str, use: Use) -> None:
    expected = use.reference.kind
    if expected is not None and kind != expected:
        raise _WrongKind(f"object {use.reference.id.hex()} is a {kind}, not a {expected}")


def _blamed(error: Corruption, user: Needed | None) -> Corruption:
    """Missing objects, and those of another kind, are told with what needs them."""
    if user is None or not isinstance(error, MissingObject | _WrongKind):
        return error
    named = f"{user.kind} {user.id.hex()[:12]}"
    if isinstance(error, MissingObject):
        return MissingObject(f"{error.message} ({named} needs it)", error.hint)
    return Corruption(f"{error.message} ({named} names it so)")
