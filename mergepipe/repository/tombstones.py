"""Models that were purged for good: `.mergepipe/purged`, docs/format.md, "Purged models".

A tombstone says of a commit, and of the snapshot that it held, who removed it, when and why. Such a
model is not kept, not sent, and not taken again, under whatever commit it comes.
"""

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, Purged
from mergepipe.ids import ObjectId

KEY = "purged"

_LINE = re.compile(
    r"(?P<commit>[0-9a-f]{64}) (?P<snapshot>[0-9a-f]{64}) (?P<time>-?[0-9]{1,19}) "
    r"(?P<who>[^\t]*)\t(?P<reason>[^\t]*)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST = 1000
_MOST_BYTES = 64 << 20


class Tombstone(Struct, frozen=True):
    """A model that was purged: `time` in Unix seconds; `reason` may be empty."""

    commit: ObjectId
    snapshot: ObjectId
    time: int
    who: str
    reason: str

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"purged on {day_of(self.time)} by {self.who}{because}"


class Tombstones(Mapping[ObjectId, Tombstone]):
    """Tombstones by the commit's id; `snapshots` by that of the model."""

    def __init__(self, stones: Iterable[Tombstone] = ()) -> None:
        self._stones = {stone.commit: stone for stone in stones}
        self.snapshots = {stone.snapshot: stone for stone in self._stones.values()}

    def __getitem__(self, commit: ObjectId) -> Tombstone:
        return self._stones[commit]

    def __iter__(self) -> Iterator[ObjectId]:
        return iter(self._stones)

    def __len__(self) -> int:
        return len(self._stones)

    def of(self, commit: ObjectId, snapshot: ObjectId) -> Tombstone | None:
        """What is said of a commit, or of another one of the same model."""
        return self._stones.get(commit) or self.snapshots.get(snapshot)

    def with_prefix(self, prefix: str) -> Tombstone | None:
        """The only one whose commit's id begins with these hex digits."""
        matching = [stone for each, stone in self._stones.items() if each.hex().startswith(prefix)]
        return matching[0] if len(matching) == 1 else None


def day_of(time_s: int) -> str:
    """The day of a moment in UTC, as messages name it."""
    try:
        return datetime.datetime.fromtimestamp(time_s, datetime.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):  # a damaged clock's time
        return "an unknown day"


def purged_error(stone: Tombstone, what: str = "", hint: str = "") -> Purged:
    """What to tell of a model that was purged; `what` names it."""
    called = what or f"the model of {stone.commit.hex()[:12]}"
    return Purged(
        f"{called} was {stone}",
        hint
        or f"its weights are gone here; mp purge --lift {stone.commit.hex()[:12]} lets it be "
        "committed, fetched or pushed again",
    )


def read_tombstones(store: ByteStore) -> Tombstones:
    """What a repository says it purged. Raises Corruption for a damaged file."""
    stones, damaged = read_stones(store)
    if damaged:
        raise Corruption(
            f"line {damaged[0]} of {KEY} is damaged",
            f"it says which models are never to come back: restore .mergepipe/{KEY} from a backup, "
            "or correct the line",
        )
    return stones


def read_stones(store: ByteStore) -> tuple[Tombstones, tuple[int, ...]]:
    """As far as they can be read, and the numbers of damaged lines, from 1."""
    size = store.size(KEY)
    if size is None:
        return Tombstones(), ()
    if size > _MOST_BYTES:
        raise Corruption(f"{KEY} has {size:,} bytes; {_MOST_BYTES:,} are allowed")
    text = (store.get(KEY) or b"").decode(errors="replace")
    stones: list[Tombstone] = []
    damaged: list[int] = []
    for number, line in enumerate(text.split("\n")[: text.count("\n") + bool(text)], 1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            damaged.append(number)
            continue
        stones.append(
            Tombstone(
                ObjectId(bytes.fromhex(match["commit"])),
                ObjectId(bytes.fromhex(match["snapshot"])),
                int(match["time"]),
                match["who"],
                match["reason"],
            )
        )
    return Tombstones(stones), tuple(damaged)


def add_tombstones(store: ByteStore, stones: Iterable[Tombstone]) -> None:
    """Say of models that they were purged; what is said already stays. `lock` is held."""
    known = read_tombstones(store)
    _write(store, {**{stone.commit: stone for stone in stones}, **known})


def lift_tombstones(store: ByteStore, snapshots: Iterable[ObjectId]) -> list[Tombstone]:
    """Let models come back; returns what is said of them no more. `lock` is held."""
    known = read_tombstones(store)
    back = set(snapshots)
    lifted = [stone for stone in known.values() if stone.snapshot in back]
    if lifted:
        kept = {each: stone for each, stone in known.items() if stone.snapshot not in back}
        _write(store, kept)
    return lifted


def line_text(text: str) -> str:
    """A name or a reason as a line can hold it."""
    return _CONTROL.sub(" ", text).strip()[:_LONGEST]


def _write(store: ByteStore, stones: Mapping[ObjectId, Tombstone]) -> None:
    lines = (
        f"{commit.hex()} {stone.snapshot.hex()} {stone.time} {line_text(stone.who)}\t"
        f"{line_text(stone.reason)}\n"
        for commit, stone in sorted(stones.items())
    )
    store.put(KEY, "".join(lines).encode(errors="backslashreplace"))
