"""What an object refers to, said once for every kind: gc, fsck, push and fetch follow this."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import decode, kind_of
from mergepipe.objects.merging import Manifest, Plan, Profile
from mergepipe.objects.records import Commit, Record, Safetensors, Snapshot, Tensor

KINDS: dict[str, type[Record]] = {
    kind.KIND: kind for kind in (Tensor, Snapshot, Commit, Profile, Plan, Manifest)
}


class Reference(NamedTuple):
    """One place where an object names another.

    kind    what the other has to be; None where it is only known that it may be one
    role    what it is there: a parent, the header of a file
    path    of the file that it is part of
    tensor  what it is called in that file
    """

    id: ObjectId
    kind: str | None
    role: str
    path: str = ""
    tensor: str = ""

    def __str__(self) -> str:
        if not self.path:
            return self.role
        if self.tensor:
            return f"tensor {quoted(self.tensor)} in {quoted(self.path)}"
        return f"{self.role} {quoted(self.path)}"


def parse(canonical: bytes, what: str) -> tuple[str, Record | None]:
    """Kind and value of an object; no value of a kind that a newer release added.

    Raises Corruption for one that is malformed.
    """
    kind = kind_of(canonical)
    known = KINDS.get(kind)
    return kind, None if known is None else decode(canonical, known, what)


def references(record: Record | None) -> Iterator[Reference]:
    """What an object is incomplete without: parents first, and files in order.

    Plans and manifests, and kinds that are not known, need nothing: see `possible_ids`.
    """
    if isinstance(record, Commit):
        yield from _of_commit(record)
    elif isinstance(record, Snapshot):
        yield from _of_snapshot(record)


def possible_ids(record: Record | None, canonical: bytes) -> tuple[ObjectId, ...]:
    """Values in an object that may be ids of others, each once.

    Kinds that are not history (plans, manifests, and what a newer version may add) are
    searched, not understood: what they name is kept where it is there.
    """
    if isinstance(record, Commit | Snapshot | Tensor | Profile):
        return ()  # of a profile: the models that it compares have commits, or plans, of their own
    return tuple(dict.fromkeys(named_ids(canonical)))


def _of_commit(commit: Commit) -> Iterator[Reference]:
    for parent in commit.parents:
        yield Reference(parent, Commit.KIND, "parent")
    yield Reference(commit.snapshot, Snapshot.KIND, "snapshot")
    for kind, other in (
        (Commit.KIND, commit.leans_on),
        (Commit.KIND, commit.trained_from),
        (Profile.KIND, commit.profile),
        (Manifest.KIND, commit.manifest),
    ):
        if other is not None:
            yield Reference(other, kind, kind)


def _of_snapshot(snapshot: Snapshot) -> Iterator[Reference]:
    for file in snapshot.files:
        content = file.content
        if not isinstance(content, Safetensors):
            yield Reference(content.data, Tensor.KIND, "file", file.path)
            continue
        yield Reference(content.header, Tensor.KIND, "header of", file.path)
        for entry in content.tensors:
            yield Reference(entry.tensor, Tensor.KIND, "tensor", file.path, entry.name)


def named_ids(canonical: bytes) -> Iterator[ObjectId]:
    """Every value in an object that has the length of an id, unchecked."""
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
