"""Notes on commits travel beside history: joined with the other side's, after refs moved."""

from collections.abc import Collection, Container, Iterable, Mapping

from mergepipe.bytestore.protocol import ByteStore, Picking, pick
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import ObjectId
from mergepipe.repository.history import reachable_commits
from mergepipe.repository.notes import (
    FOLDER,
    LARGEST_BYTES,
    Remarks,
    encode,
    joined,
    note_key,
    noted_commits,
    parse,
    parse_note_key,
    read_notes,
)
from mergepipe.transfer.home import Home

_MOST_RACES = 8
_MOST_PICKED = 10_000  # notes that are asked for by name


def push_notes(home: Home, store: ByteStore, there: Container[ObjectId]) -> int:
    """Send what is noted of the commits that are `there`; returns of how many something was new.

    Raises RemoteRefused, RemoteUnreachable.
    """
    ours = {
        each: read_notes(home.storage.store, each)
        for each in noted_commits(home.storage.store)
        if each in there
    }
    if not ours:
        return 0
    theirs = _values(store, ours)
    return sum(_send(store, commit, ours[commit], theirs.get(note_key(commit))) for commit in ours)


def _send(store: ByteStore, commit: ObjectId, remarks: Remarks, theirs: bytes | None) -> bool:
    key = note_key(commit)
    for _ in range(_MOST_RACES):
        data = encode(joined({} if theirs is None else _received(key, theirs), remarks))
        if data == theirs:
            return False
        if store.compare_and_swap(key, theirs, data):
            return True
        theirs = store.get(key)  # somebody else noted something meanwhile
    raise RemoteRefused(f"{key} of the remote never stands still", "push again")


def fetch_notes(home: Home, store: ByteStore, tips: Iterable[ObjectId] | None = None) -> int:
    """Join what a remote has noted of commits that are here; returns of how many it was new.

    With `tips`, of their history, where the remote gives that by itself. Raises RemoteRefused,
    RemoteUnreachable, Locked.
    """
    if tips is None:
        values: Mapping[str, bytes] = store.values(FOLDER)
    else:
        values = _values(store, [each for each, _ in reachable_commits(home.objects, tips)])
    news: dict[ObjectId, Remarks] = {}
    for key, data in values.items():
        commit = parse_note_key(key)
        if commit is not None and home.objects.has(commit):
            news[commit] = _received(key, data)
    count = 0
    if news:
        with home.refs.locked():
            for commit, remarks in news.items():
                before = read_notes(home.storage.store, commit)
                after = joined(before, remarks)
                if after != before:
                    home.storage.store.put(note_key(commit), encode(after))
                    count += 1
    return count


def _values(store: ByteStore, commits: Collection[ObjectId]) -> Mapping[str, bytes]:
    """What a remote has noted of some commits, at least."""
    few = len(commits) <= (_MOST_PICKED if isinstance(store, Picking) else 1)
    return pick(store, list(map(note_key, commits))) if few else store.values(FOLDER)


def swap_note(home: Home, key: str, old: bytes | None, new: bytes | None) -> bool:
    """Take notes that somebody sends in place of `old`. Raises RemoteRefused."""
    commit = parse_note_key(key)
    if commit is None or new is None or len(new) > LARGEST_BYTES:
        raise RemoteRefused(f"no notes: {key[:80]!r}")
    data = encode(_received(key, new))
    if not home.objects.has(commit):
        raise RemoteRefused(f"commit {commit.hex()[:12]} is not here: push it first")
    with home.refs.locked():
        now = home.storage.store.get(key)
        if now not in (old, data):
            return False
        if now != data:
            home.storage.store.put(key, data)
    return True


def _received(key: str, data: bytes) -> Remarks:
    try:
        return parse(data, key)
    except Corruption as error:
        raise RemoteRefused(f"{key} of the other side is no list of notes") from error
