"""Commits that are named and not here, by choice: `.mergepipe/absent`, docs/format.md.

A shallow clone has the newest commits of a history. Older ones, and side lines that were merged,
are named by what it has, and are neither read nor missed.
"""

import re
from collections.abc import Iterable

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId

KEY = "absent"
DEEPEN = "mp fetch --unshallow brings all of it, mp fetch --deepen N some"

_LINE = re.compile(rb"[0-9a-f]{64}")
# A line is 65 bytes: room for a million commits.
_MOST_BYTES = 64 << 20
_NONE: frozenset[ObjectId] = frozenset()


def read_absent(store: ByteStore) -> frozenset[ObjectId]:
    """The commits that a repository says it does without; damaged lines say nothing.

    What such a line named is then missing for whoever reads it. Raises Corruption for a file that
    is too large.
    """
    return read_absent_lines(store)[0]


def read_absent_lines(store: ByteStore) -> tuple[frozenset[ObjectId], tuple[int, ...]]:
    """The same, and the numbers of damaged lines, from 1."""
    size = store.size(KEY)
    if size is None:
        return _NONE, ()
    if size > _MOST_BYTES:
        raise Corruption(f"{KEY} has {size:,} bytes; {_MOST_BYTES:,} are allowed")
    commits: set[ObjectId] = set()
    damaged: list[int] = []
    for number, line in enumerate((store.get(KEY) or b"").splitlines(), 1):
        if _LINE.fullmatch(line):
            commits.add(ObjectId(bytes.fromhex(line.decode())))
        else:
            damaged.append(number)
    return frozenset(commits), tuple(damaged)


class AbsentCommits:
    """What a repository does without, as it stands whenever it is asked: others may deepen it."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self._seen: tuple[bytes, frozenset[ObjectId]] = (b"", _NONE)

    def __call__(self) -> frozenset[ObjectId]:
        """The commits. Raises Corruption for a file that is too large."""
        size = self._store.size(KEY)
        if not size:
            return _NONE
        value = self._store.get(KEY) if size <= _MOST_BYTES else None
        if value is None or value != self._seen[0]:
            self._seen = (value or b"", read_absent(self._store))
        return self._seen[1]


def change_absent(
    store: ByteStore, *, gone: Iterable[ObjectId] = (), here: Iterable[ObjectId] = ()
) -> None:
    """Say that some commits are done without, others not any more. `lock` is held."""
    before = read_absent(store)
    after = before.difference(here).union(gone)
    if after != before:
        write_absent(store, after)


def write_absent(store: ByteStore, commits: Iterable[ObjectId]) -> None:
    """Replace the file; without commits it goes. The repository's `lock` is held."""
    lines = [f"{commit.hex()}\n" for commit in sorted(set(commits))]
    if lines:
        store.put(KEY, "".join(lines).encode())
    elif store.size(KEY) is not None:
        store.delete(KEY)
