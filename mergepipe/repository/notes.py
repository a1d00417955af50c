"""Notes on commits: what is learnt of a model after it was committed, beside its id.

`.mergepipe/notes/<commit id>`, docs/format.md, "Notes". Two sides that noted apart are joined key
by key: what was said last stands.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, UsageError
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.names import quoted
from mergepipe.repository.reflog import Signature

FOLDER = "notes/"
LARGEST_BYTES = 64 << 10

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_FILE = re.compile(rf"notes/(?P<commit>[0-9a-f]{{{2 * ID_BYTES}}})")
_LINE = re.compile(
    r"(?P<key>[A-Za-z][A-Za-z0-9_.-]{0,63})\t(?P<value>[^\t\n]{0,1000})\t"
    r"(?P<time>-?[0-9]{1,19})\t(?P<author>[^\t\n]{0,1000})\n"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 1000


class Remark(Struct, frozen=True):
    """What is noted under one key: by whom, and when (Unix seconds). Empty: it was taken back."""

    value: str
    time: int
    author: str

    @property
    def number(self) -> float | None:
        """The value as a number, if it is a finite one."""
        try:
            number = float(self.value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    @property
    def shown(self) -> float | int | str:
        """The value as JSON has it: a number where it is one."""
        number = self.number
        if number is None:
            return self.value
        return int(self.value) if re.fullmatch(r"-?[0-9]{1,18}", self.value) else number


Remarks: TypeAlias = Mapping[str, Remark]
"""What is noted of a commit, by key; those that were taken back included."""


def note_key(commit: ObjectId) -> str:
    """Where what is noted of a commit stands."""
    return f"{FOLDER}{commit.hex()}"


def parse_note_key(key: str) -> ObjectId | None:
    """The commit whose notes stand under a key; None if it is no such key."""
    match = _FILE.fullmatch(key)
    return None if match is None else ObjectId(bytes.fromhex(match["commit"]))


def parse(data: bytes, what: str = "notes") -> Remarks:
    """Remarks of a file. Raises Corruption for one that is damaged."""
    text = data.decode(errors="replace")
    remarks: dict[str, Remark] = {}
    lines = text.splitlines(keepends=True) if len(data) <= LARGEST_BYTES else [""]
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise Corruption(
                f"{what} cannot be read", "remove that file: nothing depends on it but notes"
            )
        remarks[match["key"]] = Remark(match["value"], int(match["time"]), match["author"])
    return remarks


def encode(remarks: Remarks) -> bytes:
    """The file of some remarks. Raises UsageError where they are too many."""
    lines = (
        f"{key}\t{each.value}\t{each.time}\t{each.author}\n"
        for key, each in sorted(remarks.items())
    )
    data = "".join(lines).encode()
    if len(data) > LARGEST_BYTES:
        raise UsageError(f"the notes of a commit take at most {LARGEST_BYTES:,} bytes")
    return data


def joined(one: Remarks, other: Remarks) -> Remarks:
    """Of two sides: under each key what was said last."""
    both = dict(one)
    for key, remark in other.items():
        mine = both.get(key)
        if mine is None or (remark.time, remark.value, remark.author) > (
            mine.time,
            mine.value,
            mine.author,
        ):
            both[key] = remark
    return both


def standing(remarks: Remarks) -> dict[str, Remark]:
    """Those that were not taken back, by key."""
    return {key: each for key, each in sorted(remarks.items()) if each.value}


def read_notes(store: ByteStore, commit: ObjectId) -> Remarks:
    """What is noted of a commit. Raises Corruption."""
    data = store.get(note_key(commit))
    return {} if data is None else parse(data, note_key(commit))


def noted_commits(store: ByteStore) -> Iterator[ObjectId]:
    """Every commit of which something is noted."""
    for key in store.list(FOLDER):
        commit = parse_note_key(key)
        if commit is not None:
            yield commit


def add_notes(
    store: ByteStore, commit: ObjectId, values: Mapping[str, str], who: Signature
) -> Remarks:
    """Note values under keys; an empty one takes it back. The repository's `lock` is held.

    What is said now stands, whatever the clock was before. Raises UsageError, Corruption.
    """
    before = read_notes(store, commit)
    remarks = dict(before)
    for key, value in values.items():
        if _KEY.fullmatch(key) is None:
            raise UsageError(
                f"no key of a note: {quoted(key)}",
                "a letter, then letters, digits, dots, underscores, dashes; 64 at most",
            )
        if _CONTROL.search(value) or len(value) > _LONGEST:
            raise UsageError(f"the value of {key} is one line of at most {_LONGEST:,} characters")
        last = before.get(key)
        time = who.time if last is None else max(who.time, last.time + 1)
        author = _CONTROL.sub(" ", who.author)[:_LONGEST]
        remarks[key] = Remark(value.strip(), time, author)
    store.put(note_key(commit), encode(remarks))
    return remarks
