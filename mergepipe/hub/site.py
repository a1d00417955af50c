"""All that `mp serve` answers over http: remotes of its repositories, and the hub."""

import threading
from contextlib import ExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from mergepipe.bytestore.pace import IDLE_S
from mergepipe.closing import Closing
from mergepipe.hub.addresses import is_fit
from mergepipe.hub.application import DOWNLOADS, Hub
from mergepipe.hub.repositories import Repositories
from mergepipe.repository.push_log import PushLog
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.serving.gate import Gate
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.tokens import Tokens

_REMOTE = "v1"


class Site(Closing):
    """Repositories over http. Without tokens it answers to this machine only.

    `/v1/...` is the remote of the one repository that is served, `/NAME/v1/...` of one of several.
    """

    def __init__(
        self,
        repositories: Repositories,
        tokens: Tokens | None = None,
        *,
        read_only: bool = False,
        idle_s: float = IDLE_S,
        downloads: int = DOWNLOADS,
    ) -> None:
        self._repositories = repositories
        self._tokens = tokens
        self._read_only = read_only
        self._idle_s = idle_s
        self._hub = Hub(
            repositories, Gate(tokens), read_only=read_only, idle_s=idle_s, downloads=downloads
        )
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._remotes: dict[str, tuple[Service, ASGIApp]] = {}

    def close(self) -> None:
        """Release what remotes hold; the repositories stay open."""
        self._open.close()

    def application(self) -> ASGIApp:
        """What listens calls."""
        return self

    @property
    def busy(self) -> int:
        """How many calls of stores are under way."""
        return self._hub.busy + sum(service.busy for service, _ in self._remotes.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        first, second = (*scope["path"].split("/", 3)[1:3], "")[:2]
        name = self._repositories.sole if first == _REMOTE else None
        if second == _REMOTE and name is None:
            name, scope = first, {**scope, "root_path": f"/{first}"}
        remote = None if name is None else self._remote(name)
        await (self._hub if remote is None else remote)(scope, receive, send)

    def _remote(self, name: str) -> ASGIApp | None:
        with self._lock:
            if name not in self._remotes:
                repository = self._repositories.find(name) if is_fit(name) else None
                if repository is None:
                    return None
                store = self._open.enter_context(ReceivingStore(repository))
                log = PushLog(repository.directory, repository.author_of)
                offer = Offer(store, read_only=self._read_only, log=log)
                service = Service(offer, self._tokens, idle_s=self._idle_s)
                self._remotes[name] = service, service.application()
            return self._remotes[name][1]
