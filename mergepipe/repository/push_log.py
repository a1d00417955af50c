"""The log of what others pushed, one line of JSON a try: `.mergepipe/pushes` (docs/remotes.md).

Refs have logs of their own, which say what moved; this one says by whose token, from where, and
what was refused. It only grows at its end, up to a size at which it becomes `pushes.1`.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from mergepipe.bytestore.untrusted import open_to_change, read_plain, status_of
from mergepipe.bytestore.whole_calls import write_all

KEY = "pushes"
LARGEST_BYTES = 16 << 20
_LONGEST_TEXT = 300

Action: TypeAlias = Literal["push", "purge"]
Outcome: TypeAlias = Literal["done", "moved", "refused", "denied"]


class PushEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try.

    time       Unix seconds
    token      the token's name, or `sha256:` and eight digits of one without; empty: none was sent
    address    where the request came from; `forwarded`: what a proxy says of that, unverified
    ref        the full name, with the ids that it was to move from and to (empty: absent)
    bytes      of packs that this token sent from there since its last line
    outcome    done; moved: the ref was elsewhere; refused, by the repository; denied, by the server
    detail     why it was refused or denied
    author     of the commit that the ref was to move to, as that says, if it is here
    """

    time: int
    action: Action
    token: str
    address: str
    outcome: Outcome
    ref: str = ""
    old: str = ""
    new: str = ""
    bytes: int = 0
    forwarded: str = ""
    detail: str = ""
    author: str = ""


class PushLog:
    """The log of one repository, appended to from any thread or process."""

    def __init__(
        self, directory: Path, author_of: Callable[[str], str] = lambda commit: ""
    ) -> None:
        """`author_of` tells who made a commit, by its id in hex."""
        self._author_of = author_of
        self._path = directory / KEY
        self._lock = threading.Lock()

    def append(self, entry: PushEntry) -> None:
        """Add a line. Raises OSError, UnsafeRepository."""
        short = msgspec.structs.replace(
            entry,
            detail=entry.detail[:_LONGEST_TEXT],
            forwarded=entry.forwarded[:_LONGEST_TEXT],
            author=(self._author_of(entry.new) if entry.new else "")[:_LONGEST_TEXT],
        )
        line = msgspec.json.encode(short) + b"\n"
        with self._lock:
            status = status_of(self._path)
            if status is not None and status.st_size > LARGEST_BYTES:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    self._path.rename(self._path.with_name(f"{KEY}.1"))
            descriptor = open_to_change(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                write_all(descriptor, line)  # one call: lines of several processes stay whole
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def read(self) -> Iterator[PushEntry]:
        """All entries, oldest first; what cannot be read is left out."""
        for path in (self._path.with_name(f"{KEY}.1"), self._path):
            try:
                lines = read_plain(path).splitlines()
            except FileNotFoundError:
                continue
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield msgspec.json.decode(line, type=PushEntry)
