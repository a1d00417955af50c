"""Commits whose models a repository no longer keeps: `.mergepipe/pruned`, docs/format.md.

Such a commit stays in history, with its id, its message and what it descends from; its snapshot,
profile and manifest, and whatever only these need, are gc's to free.
"""

import re
from collections.abc import Iterable, Mapping

from blake3 import blake3
from msgspec import Struct, field
from msgspec.structs import replace

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId
from mergepipe.repository.absent import read_absent
from mergepipe.repository.tombstones import Tombstones, read_stones, read_tombstones

KEY = "pruned"

_LINE = re.compile(rb"(?P<commit>[0-9a-f]{64}) (?P<time>-?[0-9]{1,19})")
# A line is at most 85 bytes: room for three million commits.
_MOST_BYTES = 256 << 20


class Pruned(Struct, frozen=True):
    """The commits whose models are not kept, and when that was decided, in Unix seconds.

    `gone`: snapshots that were purged, which no commit is to bring, nor any plan to keep.
    `absent`: commits that are done without altogether, and are followed by nobody.
    """

    times: Mapping[ObjectId, int]
    gone: frozenset[ObjectId] = field(default_factory=frozenset)
    absent: frozenset[ObjectId] = field(default_factory=frozenset)

    def __contains__(self, commit: object) -> bool:
        return commit in self.times

    def without(self, commits: Iterable[ObjectId] = (), gone: Iterable[ObjectId] = ()) -> "Pruned":
        """The same, and the models of these commits and these objects are not kept either."""
        times = {**dict.fromkeys(commits, 0), **self.times}
        return Pruned(times, self.gone.union(gone), self.absent)

    def but_absent(self, absent: frozenset[ObjectId]) -> "Pruned":
        """The same, where these commits are done without."""
        return replace(self, absent=absent)


NONE = Pruned({})


def read_pruned(store: ByteStore) -> Pruned:
    """What the store of a repository says of itself. Raises Corruption for a damaged file."""
    return _with_purged(store, _times(store), read_tombstones(store))


def _times(store: ByteStore) -> Mapping[ObjectId, int]:
    times, damaged = _parse(store)
    if damaged:
        raise Corruption(
            f"line {damaged[0]} of {KEY} is damaged",
            "mp fsck --repair in that repository leaves it out; mp prune then notes again what it "
            "does not keep",
        )
    return times


def _with_purged(store: ByteStore, pruned: Mapping[ObjectId, int], stones: Tombstones) -> Pruned:
    times = {commit: stone.time for commit, stone in stones.items()}
    return Pruned({**pruned, **times}, frozenset(stones.snapshots), read_absent(store))


def read_lines(store: ByteStore) -> tuple[Pruned, tuple[int, ...]]:
    """As far as it can be read, and the numbers of damaged lines, from 1.

    Raises Corruption for a file that is too large.
    """
    times, damaged = _parse(store)
    return _with_purged(store, times, read_stones(store)[0]), damaged


def _parse(store: ByteStore) -> tuple[Mapping[ObjectId, int], tuple[int, ...]]:
    size = store.size(KEY)
    if size is None:
        return {}, ()
    if size > _MOST_BYTES:
        raise Corruption(f"{KEY} has {size:,} bytes; {_MOST_BYTES:,} are allowed")
    times: dict[ObjectId, int] = {}
    damaged: list[int] = []
    for number, line in enumerate((store.get(KEY) or b"").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            damaged.append(number)
            continue
        times[ObjectId(bytes.fromhex(match["commit"].decode()))] = int(match["time"])
    return times, tuple(damaged)


def mend_pruned(store: ByteStore) -> str:
    """Leave damaged lines out; returns the key of the file as it was. `lock` is held."""
    before = store.get(KEY) or b""
    kept = f"quarantine/{KEY}-{blake3(before).hexdigest()[:8]}"
    store.put(kept, before)
    _write(store, _parse(store)[0])
    return kept


def add_pruned(store: ByteStore, commits: Iterable[ObjectId], now_s: int) -> None:
    """Say that the models of `commits` are no longer kept. The repository's `lock` is held."""
    times = dict.fromkeys(commits, now_s) | dict(_times(store))
    _write(store, times)


def remove_pruned(store: ByteStore, commits: Iterable[ObjectId]) -> None:
    """Say that the models of `commits` are kept again. The repository's `lock` is held."""
    back = set(commits)
    if not back.isdisjoint(_parse(store)[0]):
        times = _times(store)
        _write(store, {commit: time for commit, time in times.items() if commit not in back})


def _write(store: ByteStore, times: Mapping[ObjectId, int]) -> None:
    lines = (f"{commit.hex()} {time}\n" for commit, time in sorted(times.items()))
    store.put(KEY, "".join(lines).encode())
