"""Xorbs that came and are in no file yet, until nobody can ask for them.

A client remembers which chunks it sent, by the address it sent them to, for weeks. So a session,
which is a part of that address, ends when its xorbs go, and what is uploaded afterwards begins
another one: no client names a chunk that is gone. One that was cut off before its files were
whole finds its session again, and sends what is missing.
"""

import secrets
import time
from collections.abc import Callable

from msgspec import Struct, field

from mergepipe.hub.models import Model
from mergepipe.hub.staging import StagedFile, Staging

_KEPT_S = 24 * 3600.0
LINGERS_S = 600.0
"""How long the xorbs of a session stay after its last request, when it has made files."""


class Xorb(Struct, frozen=True):
    """What all its chunks hold, as a file, and where each of them ends in it."""

    file: StagedFile
    ends: tuple[int, ...]


class Session(Struct):
    """Uploads to one model that may name each other's chunks."""

    name: str
    model: Model
    staging: Staging
    asked: float
    """When it was last heard of."""
    xorbs: dict[bytes, Xorb] = field(default_factory=dict)
    has_made_files: bool = False
    requests: int = 0
    """That are under way."""


class Sessions:
    """All of a server; used on its event loop alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._sessions: dict[str, Session] = {}
        self._open: dict[str, Session] = {}

    def open(self, model: Model, staging: Staging) -> Session:
        """The session that an upload to a model goes on with, or begins."""
        self.sweep()
        session = self._open.get(model.id)
        if session is None or session.has_made_files:
            session = Session(secrets.token_hex(16), model, staging, self._now())
            self._open[model.id] = self._sessions[session.name] = session
        session.asked = self._now()
        return session

    def find(self, name: str) -> Session | None:
        """The session of a name; None for one that is over."""
        session = self._sessions.get(name)
        if session is not None:
            session.asked = self._now()
        return session

    def sweep(self) -> None:
        """End the sessions that nobody goes on with."""
        now = self._now()
        for session in list(self._sessions.values()):
            kept_s = LINGERS_S if session.has_made_files else _KEPT_S
            if not session.requests and now - session.asked > kept_s:
                self._end(session)

    def _end(self, session: Session) -> None:
        del self._sessions[session.name]
        if self._open.get(session.model.id) is session:
            del self._open[session.model.id]
        for xorb in session.xorbs.values():
            session.staging.give_back(xorb.file, done=False)
        session.xorbs.clear()
