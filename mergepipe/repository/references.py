"""What an object refers to, of every kind, and everything that a set of roots keeps alive."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ID_BYTES, BlockId, ObjectId
from mergepipe.objects.encoding import decode, kind_of
from mergepipe.objects.merging import Manifest, Plan, Profile
from mergepipe.objects.records import Commit, Record, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.repository.history import snapshot_tensors
from mergepipe.repository.reflog import Reflog
from mergepipe.repository.refs import RefStore

KINDS: dict[str, type[Record]] = {
    kind.KIND: kind for kind in (Tensor, Snapshot, Commit, Profile, Plan, Manifest)
}
_HEX_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Notes about runs are small; a larger file there is not one.
_LARGEST_NOTE = 64 << 20


@dataclass(frozen=True, slots=True)
class References:
    """What one object names.

    needed    objects without which it is incomplete
    possible  values that may be ids of objects: kinds that are not history (profiles, plans,
              manifests, and what a newer version may add) are searched, not understood
    """

    kind: str
    needed: tuple[ObjectId, ...]
    possible: tuple[ObjectId, ...]
    blocks: tuple[BlockId, ...]


def references(canonical: bytes, what: str) -> References:
    """What the object with these bytes refers to. Raises Corruption for one that is malformed."""
    kind = kind_of(canonical)
    known = KINDS.get(kind)
    record = None if known is None else decode(canonical, known, what)
    if isinstance(record, Commit):
        optional = (record.profile, record.manifest)
        needed = (record.snapshot, *record.needed, *(other for other in optional if other))
        return References(kind, needed, (), ())
    if isinstance(record, Snapshot):
        return References(kind, tuple(snapshot_tensors(record)), (), ())
    if isinstance(record, Tensor):
        return References(kind, (), (), tuple(record.block_ids()))
    return References(kind, (), tuple(dict.fromkeys(_possible_ids(canonical))), ())


def _possible_ids(canonical: bytes) -> Iterator[ObjectId]:
    body = canonical.partition(b"\n")[2]
    try:
        stack: list[Any] = [msgspec.msgpack.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # a kind of a newer release, in an encoding that we do not know
    while stack:
        value = stack.pop()
        if isinstance(value, bytes):
            if len(value) == ID_BYTES:
                yield ObjectId(value)
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            stack += value.values()


@dataclass(slots=True)
class Alive:
    """What roots reach: objects with their kinds, and the blocks of the tensors among them."""

    objects: dict[ObjectId, str] = field(default_factory=dict)
    blocks: dict[BlockId, None] = field(default_factory=dict)


Complaint = Callable[[ObjectId, ObjectId | None, Corruption], None]


def follow(
    roots: Iterable[ObjectId],
    objects: ObjectStore,
    storage: Storage,
    alive: Alive,
    complain: Complaint | None = None,
) -> None:
    """Add to `alive` all that `roots` reach.

    Without `complain`, raises MissingObject or Corruption for the first needed object that cannot
    be read; with it, calls it with the object, what named it, and the error, and goes on.
    """
    stack: list[tuple[ObjectId, ObjectId | None]] = [(root, None) for root in roots]
    failed: set[ObjectId] = set()
    while stack:
        identity, parent = stack.pop()
        if identity in alive.objects or identity in failed:
            continue
        try:
            found = references(objects.canonical(identity), f"object {identity.hex()[:12]}")
        except Corruption as error:
            if complain is None:
                raise
            failed.add(identity)
            complain(identity, parent, error)
            continue
        alive.objects[identity] = found.kind
        alive.blocks.update(dict.fromkeys(found.blocks))
        stack += [(other, identity) for other in present(found.possible, storage)]
        stack += [(other, identity) for other in found.needed[::-1]]


def present(candidates: Iterable[ObjectId], storage: Storage) -> list[ObjectId]:
    """Those of some values that are ids of stored objects."""
    wanted = list(candidates)
    if not wanted:
        return []
    return storage.ask(lambda view: [one for one in wanted if view.object(one) is not None])


@dataclass(frozen=True, slots=True)
class Roots:
    """Where history hangs. Refs and HEAD are `required`; the rest is kept as far as it is there."""

    required: tuple[ObjectId, ...]
    optional: tuple[ObjectId, ...]


def roots(
    refs: RefStore,
    store: ByteStore,
    *,
    reflog: bool = True,
    extra: Iterable[ObjectId] = (),
) -> Roots:
    """All roots: refs, HEAD, `extra`; and reflogs, the worktree's snapshot, ids noted in `runs/`.

    Raises Corruption for a damaged ref, HEAD or reflog: nothing is guessed away.
    """
    head = refs.head().commit
    required = [*refs.list().values(), *([] if head is None else [head]), *extra]
    optional: list[ObjectId] = []
    if reflog and refs.reflog is not None:
        optional += logged(refs.reflog)
    optional += noted(store)
    return Roots(tuple(dict.fromkeys(required)), tuple(dict.fromkeys(optional)))


def logged(reflog: Reflog) -> Iterator[ObjectId]:
    """Every commit that a reflog mentions. Raises Corruption for a damaged line."""
    for name in reflog.names():
        for entry in reflog.read(name):
            yield from (value for value in (entry.new, entry.old) if value is not None)


def noted(store: ByteStore) -> Iterator[ObjectId]:
    """Ids that stand in the worktree file and in the files of `runs/`, or are their names."""
    for key in ("worktree", *store.list("runs/")):
        size = store.size(key)
        texts = [key.encode(errors="replace")]
        if size is not None and size <= _LARGEST_NOTE:
            texts.append(store.get(key) or b"")
        for text in texts:
            for match in _HEX_ID.finditer(text):
                yield ObjectId(bytes.fromhex(match[0].decode()))
