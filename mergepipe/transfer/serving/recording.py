"""Who pushes what through a server, written down as it happens."""

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from msgspec import Struct

from mergepipe.bytestore.wire import SwapRequest
from mergepipe.errors import MergepipeError
from mergepipe.repository.notes import FOLDER as NOTES
from mergepipe.repository.push_log import Action, Outcome, PushEntry, PushLog

_log = logging.getLogger("mergepipe.serve")
# Somebody who knocks again and again shall not fill the disk.
_DENIED_EVERY_S = 60
_REMEMBERED = 1024


class Caller(Struct, frozen=True):
    """Who sent a request: a token's name, an address, and what a proxy says of the address."""

    token: str = ""
    address: str = ""
    forwarded: str = ""


@dataclass
class Recorder:
    """Writes to the log of one repository; without a log, nowhere. From any thread."""

    log: PushLog | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sent: OrderedDict[Caller, int] = field(default_factory=OrderedDict)
    _denied: OrderedDict[tuple[Caller, str], float] = field(default_factory=OrderedDict)

    def sent(self, caller: Caller, size: int) -> None:
        """A pack of `size` bytes came."""
        with self._lock:
            self._sent[caller] = self._sent.pop(caller, 0) + size
            while len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)

    def swapped(
        self, caller: Caller, asked: SwapRequest, outcome: Outcome, detail: str = ""
    ) -> None:
        """A ref was asked to move."""
        noted = asked.key.startswith(NOTES)  # what is noted is no id
        old, new = ("", "") if noted else (_text(asked.old), _text(asked.new))
        self._write(caller, "push", outcome, detail, asked.key, old, new)

    def purged(self, caller: Caller, outcome: Outcome, detail: str = "") -> None:
        """Models were asked to be removed."""
        self._write(caller, "purge", outcome, detail)

    def denied(self, caller: Caller, action: Action, detail: str) -> None:
        """A request that writes was not let in; the same one is told once a minute."""
        now = time.monotonic()
        with self._lock:
            last = self._denied.pop((caller, detail), None)
            self._denied[caller, detail] = now if last is None else last
            while len(self._denied) > _REMEMBERED:
                self._denied.popitem(last=False)
            if last is not None and now - last < _DENIED_EVERY_S:
                return
            self._denied[caller, detail] = now
        self._write(caller, action, "denied", detail)

    def _write(
        self,
        caller: Caller,
        action: Action,
        outcome: Outcome,
        detail: str,
        ref: str = "",
        old: str = "",
        new: str = "",
    ) -> None:
        if self.log is None:
            return
        with self._lock:
            sent = self._sent.pop(caller, 0) if action == "push" and outcome != "denied" else 0
        entry = PushEntry(
            time=int(time.time()),
            action=action,
            token=caller.token,
            address=caller.address,
            outcome=outcome,
            ref=ref,
            old=old,
            new=new,
            bytes=sent,
            forwarded=caller.forwarded,
            detail=detail,
        )
        try:
            self.log.append(entry)
        except (OSError, MergepipeError) as error:  # what was pushed is in the reflog, too
            _log.error("cannot write to the log of pushes: %s", error)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace").strip()
