"""Who writes to a bucket, and who collects what nothing there needs: never both at once.

A bucket has no locks. Each side puts an object that says what it does, and then looks for one of
the other: of two that begin at the same time, one sees the other, as a bucket's reads and listings
show whatever was written before. Objects count for as long as they are renewed, by the bucket's
clock, so that a process that was killed stops nobody for long. docs/format-remote.md, "Turns".
"""

import contextlib
import os
import socket
import threading
import time

import msgspec

from mergepipe.bytestore.cloud import CloudByteStore
from mergepipe.closing import Closing
from mergepipe.errors import Locked, MergepipeError, RemoteUnreachable
from mergepipe.names import escape_for_terminal

LEASES = "leases/"
COLLECTING = "gc/lock"
_CLOCK = "gc/clock"
RENEW_S = 60.0
VOID_AFTER_S = 900.0
# Who could not renew for this long stops, well before others may begin.
_MOST_SILENT_S = VOID_AFTER_S / 2
_LATER = "try again when it is done; one that was killed stops nobody for longer than 15 minutes"


class Turn(msgspec.Struct, frozen=True):
    """Whose turn it is: process, machine, command; `mark` tells it from all others."""

    mark: str
    pid: int
    host: str
    command: str

    @classmethod
    def of(cls, command: str) -> "Turn":
        """That of this process."""
        return cls(os.urandom(16).hex(), os.getpid(), socket.gethostname(), command)


class _Renewed(Closing):
    """Renews an object every minute in a thread of its own, and knows when it did last."""

    def __init__(self, store: CloudByteStore, turn: Turn) -> None:
        self._store = store
        self._turn = msgspec.json.encode(turn)
        self._ended = threading.Event()
        self._renewed_s = time.monotonic()
        self._thread = threading.Thread(target=self._renew, name="bucket-turn", daemon=True)

    def check(self) -> None:
        """Raise RemoteUnreachable where it may have become void: others may have had their turn."""
        silent = time.monotonic() - self._renewed_s
        if silent > _MOST_SILENT_S:
            raise RemoteUnreachable(
                f"for {silent:.0f} s {self._store.shown} could not be told that this goes on",
                "type the same again: what was sent is not sent twice",
            )

    def _again(self) -> None:
        """Write the object once more."""
        raise NotImplementedError

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            began = time.monotonic()
            # What keeps failing is found by `check`.
            with contextlib.suppress(MergepipeError):
                self._again()
                self._renewed_s = began

    def _end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


class Writing(_Renewed):
    """A writer's turn, until it is closed. Raises Locked while somebody collects."""

    def __init__(self, store: CloudByteStore, command: str) -> None:
        turn = Turn.of(command)
        super().__init__(store, turn)
        self._key = f"{LEASES}{turn.mark}"
        self._again()
        try:
            at = store.modified(COLLECTING)
            if at is not None and at > (store.modified(self._key) or 0.0) - VOID_AFTER_S:
                told = _told(store, COLLECTING)
                raise Locked(f"gc is at work in {store.shown}{told}", _LATER)
        except BaseException:
            self._remove()
            raise
        self._thread.start()

    def close(self) -> None:
        """The work is done."""
        self._end()
        with contextlib.suppress(MergepipeError):
            self._remove()

    def _again(self) -> None:
        self._store.put(self._key, self._turn)

    def _remove(self) -> None:
        try:
            self._store.delete(self._key)
        except MergepipeError:  # who may write may not delete: an empty object is no value
            self._store.put(self._key, b"")


class Collecting(_Renewed):
    """The turn of who collects, until it is closed. `now_s`: the time there when it began.

    Raises Locked while somebody writes, or collects.
    """

    def __init__(self, store: CloudByteStore, command: str) -> None:
        super().__init__(store, Turn.of(command))
        store.put(_CLOCK, b"\n")
        self.now_s = store.modified(_CLOCK) or time.time()
        before = store.get(COLLECTING)
        at = None if before is None else store.modified(COLLECTING)
        void = at is None or at <= self.now_s - VOID_AFTER_S
        if not void or not store.compare_and_swap(COLLECTING, before, self._turn):
            told = _told(store, COLLECTING)
            raise Locked(f"another gc is at work in {store.shown}{told}", _LATER)
        self._held = True
        try:
            for key, lease in store.dated(LEASES).items():
                if lease.at_s > self.now_s - VOID_AFTER_S:
                    raise Locked(f"somebody writes to {store.shown}{_told(store, key)}", _LATER)
                store.delete(key)
        except BaseException:
            self._release()
            raise
        self._thread.start()

    def check(self) -> None:
        """Raise RemoteUnreachable where it may be another's turn."""
        super().check()
        if not self._held:
            raise RemoteUnreachable(
                f"another gc took over in {self._store.shown}", "look at what it says"
            )

    def close(self) -> None:
        """Let others have their turn."""
        self._end()
        with contextlib.suppress(MergepipeError):
            self._release()

    def _again(self) -> None:
        if not self._store.compare_and_swap(COLLECTING, self._turn, self._turn):
            self._held = False

    def _release(self) -> None:
        self._store.compare_and_swap(COLLECTING, self._turn, None)


def _told(store: CloudByteStore, key: str) -> str:
    """Who it is, in a few words, as far as the object says."""
    with contextlib.suppress(msgspec.MsgspecError):
        turn = msgspec.json.decode(store.get(key) or b"", type=Turn)
        return escape_for_terminal(f": {turn.command} (process {turn.pid} on {turn.host})", 200)
    return ""
