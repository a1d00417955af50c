"""Refs: the few names that move, each changed by compare-and-swap, its log line written first.

The order within a change, and why, is docs/format.md, "Publication", steps 4 and 5.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore, Foldered, items_after, keys_after
from mergepipe.errors import Corruption, InvalidRefName, Locked, RefExists, RefMoved
from mergepipe.ids import ObjectId
from mergepipe.repository import locks
from mergepipe.repository.operations import OperationLog
from mergepipe.repository.reflog import Reflog, ReflogEntry, Signature
from mergepipe.repository.refnames import HEADS, check_ref_name, short_name, title
from mergepipe.repository.staged_moves import Staged, StagedMove, swap_all
from mergepipe.repository.taken_names import TakenNames, names_beside

HEAD = "HEAD"
_WILD = re.compile(r"[*?\[]")
_ID_LINE = re.compile(rb"[0-9a-f]{64}\n?")


class Expectation(Enum):
    """What `update` and `delete` may be told instead of a value."""

    ANY = "any"


ANY: Final = Expectation.ANY
Expected: TypeAlias = ObjectId | Literal[Expectation.ANY] | None


class Head(Struct, frozen=True):
    """Where HEAD is: on a branch (`branch` is its full ref name), or detached at `commit`.

    A branch without a commit is unborn: the first commit makes it.
    """

    branch: str | None
    commit: ObjectId | None

    @property
    def short_branch(self) -> str | None:
        """`main` for `refs/heads/main`; None if detached."""
        return None if self.branch is None else short_name(self.branch)


class RefStore:
    """The refs of one repository, or of a remote (then without lock and log).

    `lock` is the file that processes exclude each other by while they change refs, waited for
    `lock_timeout_s`, once `guard` did not object. Every method may be called from any thread.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        lock: Path | None = None,
        lock_timeout_s: float = 10.0,
        reflog: Reflog | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self.reflog = reflog
        self._guard = guard
        self._store = store
        self._lock = lock
        self._lock_timeout_s = lock_timeout_s
        self._thread_lock = threading.RLock()
        self._held: locks.HeldLock | None = None
        self.operations: OperationLog | None = None
        """Where moves are written down, so that they can be taken back."""
        self._blocks = 0
        self._why = ""
        # Known while the lock is held: nobody else moves refs.
        self._taken: TakenNames | None = None
        self._staged: Staged | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository's `lock`, so that steps before a ref's move belong to it.

        Calls of this store inside the block do not wait for themselves. Raises Locked.
        """
        if not self._thread_lock.acquire(timeout=self._lock_timeout_s):
            raise Locked(f"another thread holds {self._lock}")
        try:
            if self._lock is None or (self._held is not None and self._held.held):
                yield
                return
            self._guard()
            self._held = locks.acquire(self._lock, timeout_s=self._lock_timeout_s)
            self._blocks += 1
            try:
                yield
            finally:
                self._held.release()
                self._held = None
                self._taken = None
        finally:
            self._thread_lock.release()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold the lock; refs that `update` and `delete` move inside move in the end, all at once.

        So a thousand cost little more than one: they are made durable together. What is read here
        meanwhile is where they will be. If the block raises, none of them moves; if a crash cuts
        their move short, the first ones may have.
        """
        with self.locked():
            if self._staged is not None:
                yield
                return
            self._staged = Staged()
            try:
                yield
                self._flush()
            finally:
                self._staged = None

    def note_pruned(self, commits: Sequence[ObjectId], *, again: bool = False) -> None:
        """Write down what is about to be let go of, or kept `again`; the lock is held."""
        if self.operations is not None:
            self.operations.pruned(commits, self._blocks, again=again)

    def head(self) -> Head:
        """Where HEAD is. Raises Corruption if it names neither a branch nor a commit."""
        data = self._get(HEAD)
        if data is None:
            raise Corruption("HEAD is missing", f"{_repair_hint(HEAD)}, or `mp switch` a branch")
        if data.startswith(b"ref: "):
            branch = data[5:].decode(errors="replace").rstrip("\n")
            try:
                check_ref_name(branch)
            except InvalidRefName as error:
                raise Corruption(f"HEAD is damaged: {error.message}", _repair_hint(HEAD)) from error
            return Head(branch, self.read(branch))
        return Head(None, _decode(HEAD, data))

    def read(self, name: str) -> ObjectId | None:
        """What a full ref name, or `HEAD`, points at; None if there is no such ref.

        Raises InvalidRefName, Corruption.
        """
        if name == HEAD:
            return self.head().commit
        data = self._get(check_ref_name(name))
        return None if data is None else _decode(name, data)

    def names(self, prefix: str = "refs/") -> list[str]:
        """Full names of the refs in a folder (`refs/heads/`), sorted, damaged ones included."""
        folder = prefix if prefix.endswith("/") else prefix + "/"
        present = self._store.list(folder)
        staged = self._staged
        if staged is None or not staged.is_mine:
            return sorted(present)
        return staged.names(present, folder)

    def more_than(self, count: int) -> bool:
        """Whether there are more refs than so many; not all of them are looked at for that."""
        return next(islice(keys_after(self._store, "refs/"), count, None), None) is not None

    def list(self, prefix: str = "refs/") -> dict[str, ObjectId]:
        """The refs in a folder and what they point at, sorted by name. Raises Corruption."""
        folder = prefix if prefix.endswith("/") else prefix + "/"
        values: dict[str, bytes | None] = dict(items_after(self._store, folder))
        staged = self._staged
        if staged is not None and staged.is_mine:
            names = staged.names(values, folder)
            values = {it: staged.value(it) if it in staged else values[it] for it in names}
        return {name: _decode(name, data) for name, data in values.items() if data is not None}

    def matching(self, folder: str, pattern: str = "*") -> Iterator[tuple[str, ObjectId]]:
        """The refs of a folder (`refs/heads/`) whose names behind it match, sorted, as they come.

        `*` stands for any characters, `/` among them, as in git. Only folders that the pattern
        begins with are looked into, and only what matches is read. Raises Corruption.
        """
        literal = _WILD.split(pattern, maxsplit=1)[0]
        for name in keys_after(self._store, folder + literal[: literal.rfind("/") + 1]):
            if fnmatchcase(name.removeprefix(folder), pattern):
                data = self._store.get(name)
                if data is not None:
                    yield name, _decode(name, data)

    def update(
        self, name: str, new: ObjectId, *, expected: Expected, who: Signature, why: str
    ) -> ObjectId | None:
        """Point a ref at `new` if it is at `expected` (None: there is none yet; ANY: wherever).

        Returns where it was, once the move is durable. With ANY a damaged ref is replaced too.
        Raises RefMoved (RefExists if one was not to be there, or stands in the way),
        InvalidRefName, Corruption, Locked.
        """
        check_ref_name(name)
        with self.locked():
            data, old = self._expect(name, expected)
            if data is None:
                self._check_free(name)
            elif old == new:
                return old
            entry = ReflogEntry(old, new, who, why)
            lines = [(name, entry), *([(HEAD, entry)] if self._is_current(name) else [])]
            self._move(StagedMove(name, data, new.hex().encode() + b"\n", why, tuple(lines)))
            if self._taken is not None:
                self._taken.add(name)
            return old

    def rename(self, old: str, new: str, *, who: Signature, why: str) -> ObjectId | None:
        """Give a ref another name; its log goes along, and HEAD if it stands on it.

        Returns where it is (None: only HEAD was there, on an unborn branch). Raises RefExists,
        InvalidRefName, Corruption, Locked.
        """
        check_ref_name(new)
        with self.locked():
            self._flush()
            self._why = why
            data, at = self._expect(old, ANY)
            self._expect(new, None)
            current = self._is_current(old)
            if data is not None and at is not None:
                self._check_free(new)
                if self.reflog is not None:
                    for entry in reversed(self.reflog.read(old)):
                        self.reflog.append(new, entry)
                self._log(new, ReflogEntry(at, at, who, why))
                self._swap(new, None, data)
            if current:
                self.set_head(new, who=who, why=why)
            if data is not None:
                # Last: a crash before leaves two names, and loses none.
                self._swap(old, data, None)
                if self.reflog is not None:
                    self.reflog.remove(old)
            self._taken = None
            return at

    def delete(
        self,
        name: str,
        *,
        expected: Expected,
        who: Signature,
        why: str = "delete",
        keep_log: bool = False,
    ) -> ObjectId | None:
        """Remove a ref, if it is at `expected`; returns where it was.

        Its log goes too, unless `keep_log`: then gc keeps what it names, as after any other move.

        Whether the current branch may go is for the caller to say; HEAD is then unborn.
        Raises RefMoved, Corruption, Locked; nothing happens if there is no such ref.
        """
        check_ref_name(name)
        with self.locked():
            data, old = self._expect(name, expected)
            if data is None:
                return None
            entry = ReflogEntry(old, None, who, why)
            logs = [*([HEAD] if self._is_current(name) else []), *([name] if keep_log else [])]
            lines = tuple((log, entry) for log in logs)
            self._move(StagedMove(name, data, None, why, lines, drops_log=not keep_log))
            self._taken = None
            return old

    def set_head(self, target: str | ObjectId, *, who: Signature, why: str) -> None:
        """Put HEAD on a branch (full ref name, perhaps unborn) or detach it at a commit."""
        if isinstance(target, str):
            if not check_ref_name(target).startswith(HEADS):
                raise InvalidRefName(f"HEAD can stand on branches only, not on {target!r}")
            data = f"ref: {target}\n".encode()
        else:
            data = target.hex().encode() + b"\n"
        with self.locked():
            self._flush()
            self._why = why
            before = self._store.get(HEAD)
            try:
                old = None if before is None else self.head().commit
            except Corruption:
                old = None  # setting HEAD is how a damaged one is repaired
            new = self.read(target) if isinstance(target, str) else target
            if self.reflog is not None and (old is not None or new is not None):
                self.reflog.append(HEAD, ReflogEntry(old, new, who, why))
            self._swap(HEAD, before, data)

    def _get(self, name: str) -> bytes | None:
        staged = self._staged
        if staged is not None and staged.is_mine and name in staged:
            return staged.value(name)
        return self._store.get(name)

    def _move(self, move: StagedMove) -> None:
        """Make a move, or stage it where several are made together; the lock is held."""
        if self._staged is None:
            self._make([move])
            return
        if move.name in self._staged:
            self._flush()
        self._staged.add(move)

    def _flush(self) -> None:
        """Make the moves that are staged."""
        if self._staged is not None:
            moves, self._staged = list(self._staged), Staged()
            self._make(moves)

    def _make(self, moves: Sequence[StagedMove]) -> None:
        """Logs first, then refs: never a move without a line."""
        if self.operations is not None:
            self.operations.moved([(it.name, it.old, it.new, it.why) for it in moves], self._blocks)
        if self.reflog is not None:
            self.reflog.append_all([line for move in moves for line in move.lines])
        # Under our lock only someone who does not take it (a remote's other clients) can win.
        swap_all(self._store, moves)
        if self.reflog is not None:
            for move in moves:
                if move.drops_log:
                    self.reflog.remove(move.name)

    def _expect(self, name: str, expected: Expected) -> tuple[bytes | None, ObjectId | None]:
        data = self._get(name)
        try:
            old = None if data is None else _decode(name, data)
        except Corruption:
            if expected is not ANY:
                raise
            old = None
        if expected is not ANY and old != expected:
            if expected is None:
                raise RefExists(
                    f"{title(name)} exists already, at {_abbreviated(old)}",
                    "choose another name, or remove that one first: `mp branch -d`, `mp tag -d`",
                )
            raise RefMoved(
                f"{title(name)} is at {_abbreviated(old)}, not at {_abbreviated(expected)}: "
                "another process moved it",
                "look at what is there now and try again",
            )
        return data, old

    def _log(self, name: str, entry: ReflogEntry) -> None:
        if self.reflog is not None:
            self.reflog.append(name, entry)
            if self._is_current(name):
                self.reflog.append(HEAD, entry)

    def _is_current(self, name: str) -> bool:
        return self._store.get(HEAD) == f"ref: {name}\n".encode()

    def _swap(self, name: str, old: bytes | None, new: bytes | None) -> None:
        if self.operations is not None:
            self.operations.moved([(name, old, new, self._why)], self._blocks)
        swap_all(self._store, [StagedMove(name, old, new, self._why)])

    def _check_free(self, name: str) -> None:
        staged = self._staged
        if self._taken is None and not staged and isinstance(self._store, Foldered):
            names_beside(self._store, name).check(name)
            return
        taken = self._taken or TakenNames(self.names())
        if self._held is not None:
            self._taken = taken
        taken.check(name)


def _decode(name: str, data: bytes) -> ObjectId:
    if _ID_LINE.fullmatch(data) is None:
        raise Corruption(f"{name} is damaged: {data[:40]!r} is not a commit id", _repair_hint(name))
    return ObjectId(bytes.fromhex(data[:64].decode()))


def _repair_hint(name: str) -> str:
    return f"`mp reflog {short_name(name)}` lists where it was; `mp fsck` checks the rest"


def _abbreviated(value: ObjectId | None) -> str:
    return "no commit" if value is None else value.hex()[:12]
