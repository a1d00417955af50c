"""Where history hangs: refs, HEAD, reflogs, and ids noted beside them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import ObjectId
from mergepipe.repository.reflog import Reflog
from mergepipe.repository.refs import RefStore

_HEX_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Notes about runs are small; a larger file there is not one.
_LARGEST_NOTE = 64 << 20


@dataclass(frozen=True, slots=True)
class Roots:
    """What is to be kept. Refs and HEAD are `required`; the rest is kept as far as it is there."""

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
