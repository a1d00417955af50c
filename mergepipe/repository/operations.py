"""The log of operations: which refs each command moved, from where to where (docs/format.md).

Reflogs say it ref by ref; this log says it command by command, so that one can be taken back. As in
a reflog, a line is written before its ref moves: a crash leaves at most a line about a move that
never was. The idea is jj's (https://docs.jj-vcs.dev/latest/operation-log/).
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct, field

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.untrusted import open_to_change
from mergepipe.bytestore.whole_calls import write_all
from mergepipe.ids import ObjectId
from mergepipe.names import escape_for_terminal
from mergepipe.repository.refnames import HEADS, TAGS

KEY = "operations"
HEAD = "HEAD"
_MOST_BYTES = 4 << 20
_PREFIX = "ref: "


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One move of one ref, or commits whose models are let go of, or `kept` again.

    `old`, `new`: as in the ref's file.
    """

    op: str
    time: int
    command: str
    ref: str = ""
    old: str = ""
    new: str = ""
    why: str = ""
    pruned: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Move(Struct, frozen=True):
    """A ref (or `HEAD`), and where it was and is: a commit id, `ref: NAME`, or empty for absent."""

    ref: str
    old: str
    new: str


class Operation(Struct):
    """What one command did to refs, each of them once; `why` is what the reflog says of it."""

    id: str
    time: int
    command: str
    why: str
    moves: dict[str, Move] = field(default_factory=dict)
    pruned: list[ObjectId] = field(default_factory=list)
    kept: list[ObjectId] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Take in a line of it."""
        if line.ref:
            first = self.moves.get(line.ref)
            self.moves[line.ref] = Move(line.ref, first.old if first else line.old, line.new)
        self.pruned += (ObjectId(bytes.fromhex(each)) for each in line.pruned)
        self.kept += (ObjectId(bytes.fromhex(each)) for each in line.kept)


class OperationLog:
    """The log of one repository. Callers hold its `lock` while they add to it."""

    def __init__(self, store: LocalByteStore) -> None:
        self._store = store
        self._command = ""
        self._operation = ""
        self._block = -1
        self._block_operation = ""

    @contextlib.contextmanager
    def operation(self, command: str) -> Iterator[None]:
        """All that is moved meanwhile is one operation; inside another it belongs to that one."""
        if self._operation:
            yield
            return
        self._operation, self._command = os.urandom(6).hex(), command
        try:
            yield
        finally:
            self._operation = self._command = ""

    def moved(
        self, moves: Sequence[tuple[str, bytes | None, bytes | None, str]], block: int
    ) -> None:
        """Branches, tags or HEAD are about to move: each from where, to where, and why.

        `block` numbers the time of holding the lock. Other refs are notes of what others have, and
        are not taken back.
        """
        ours = [
            (ref, old, new, why)
            for ref, old, new, why in moves
            if old != new and (ref == HEAD or ref.startswith((HEADS, TAGS)))
        ]
        if ours:
            operation, command = self._current(block)
            now = int(time.time())
            self._append(
                Line(
                    op=operation,
                    time=now,
                    command=command,
                    ref=ref,
                    old=_text(old),
                    new=_text(new),
                    why=why,
                )
                for ref, old, new, why in ours
            )

    def pruned(self, commits: Sequence[ObjectId], block: int, *, again: bool = False) -> None:
        """These models are about to be let go of; `again`: to be kept again."""
        if commits:
            operation, command = self._current(block)
            names = tuple(each.hex() for each in commits)
            line = Line(
                op=operation,
                time=int(time.time()),
                command=command,
                why="kept again" if again else "prune",
            )
            changed = {"kept": names} if again else {"pruned": names}
            self._append([msgspec.structs.replace(line, **changed)])

    def read(self) -> list[Operation]:
        """All operations, newest first. Lines that cannot be read are left out."""
        operations: dict[str, Operation] = {}
        for raw in (self._store.get(KEY) or b"").splitlines():
            try:
                line = msgspec.json.decode(raw, type=Line)
                operation = operations.setdefault(
                    line.op,
                    Operation(id=line.op, time=line.time, command=line.command, why=line.why),
                )
                operation.add(line)
            except (msgspec.DecodeError, ValueError):
                continue
        return list(operations.values())[::-1]

    def _current(self, block: int) -> tuple[str, str]:
        if self._operation:
            return self._operation, self._command
        if block != self._block:
            self._block, self._block_operation = block, os.urandom(6).hex()
        return self._block_operation, "python"

    def _append(self, lines: Iterable[Line]) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if (self._store.size(KEY) or 0) > _MOST_BYTES:
            kept = (self._store.get(KEY) or b"")[-_MOST_BYTES // 2 :]
            self._store.put(KEY, kept.partition(b"\n")[2])
        path = self._store.path(KEY)
        descriptor = open_to_change(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # a crash cut the line before
            # Not synced: after a power cut the last lines may be gone, and with them an undo.
            write_all(descriptor, data)
        finally:
            os.close(descriptor)


def branch_of(value: str) -> str | None:
    """The full name of the branch that a value of HEAD says it is on; None if it is detached."""
    return value.removeprefix(_PREFIX) if value.startswith(_PREFIX) else None


def _text(data: bytes | None) -> str:
    return "" if data is None else escape_for_terminal(data.decode(errors="replace").strip())
