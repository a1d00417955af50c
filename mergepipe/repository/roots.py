"""Where history hangs: refs, HEAD, reflogs, and the model that is checked out."""

import math
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId
from mergepipe.repository.history import Commits
from mergepipe.repository.refs import RefStore
from mergepipe.repository.waiting import waiting

_HEX_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# It lists the files of a model; a larger one is not ours.
_LARGEST_NOTE = 64 << 20


class Roots(Struct, frozen=True):
    """What is to be kept. Refs and HEAD are `required`; the rest is kept as far as it is there."""

    required: tuple[ObjectId, ...]
    optional: tuple[ObjectId, ...]


def roots(
    refs: RefStore,
    store: ByteStore,
    *,
    reflog: bool = True,
    reflog_since: int = 0,
    extra: Iterable[ObjectId] = (),
) -> Roots:
    """All roots: refs, HEAD, `extra`; and reflogs since a moment, the worktree, waiting plans.

    What a merge's run took (`runs/`) is a note, and keeps nothing.
    Raises Corruption for a damaged ref or HEAD: nothing is guessed away.
    """
    head = refs.head().commit
    required = [*refs.list().values(), *([] if head is None else [head]), *extra]
    optional: list[ObjectId] = []
    if reflog and refs.reflog is not None:
        optional += refs.reflog.mentioned(reflog_since)
    optional += [*checked_out(store), *waiting(store)]
    return Roots(tuple(dict.fromkeys(required)), tuple(dict.fromkeys(optional)))


def newest_first(commits: Iterable[ObjectId], objects: Commits) -> list[ObjectId]:
    """Commits by their time; what cannot be read comes last, for whoever reads it to say so."""

    def age(identity: ObjectId) -> float:
        try:
            return -objects.commit(identity).time
        except Corruption:
            return math.inf

    return sorted(commits, key=age)


def checked_out(store: ByteStore) -> Iterator[ObjectId]:
    """Ids that stand in the worktree file."""
    size = store.size("worktree")
    if size is not None and size <= _LARGEST_NOTE:
        for match in _HEX_ID.finditer(store.get("worktree") or b""):
            yield ObjectId(bytes.fromhex(match[0].decode()))
