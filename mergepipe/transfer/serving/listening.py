"""The process that listens: a socket, uvicorn, and an end that lets requests finish."""

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mergepipe.bytestore.pace import IDLE_S
from mergepipe.errors import UsageError

_CONNECTIONS = 256
_FINISHING_S = 5
_ANNOUNCED_S = 0.05


class Serving(Protocol):
    """What answers requests."""

    @property
    def busy(self) -> int:
        """How many calls of a store are under way."""
        ...

    def application(self) -> ASGIApp:
        """What is called with each."""
        ...


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's, less the connections on which no request comes, or comes a byte at a time."""

    idle_s = IDLE_S

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._seen: object = None
        self._watch = self.loop.call_later(self.idle_s, self._look)

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(error)

    def _look(self) -> None:
        quiet = self.cycle is None or self.cycle.response_complete
        if quiet and self.cycle is self._seen:
            self.transport.abort()
            return
        self._seen = self.cycle
        self._watch = self.loop.call_later(self.idle_s, self._look)


def bind(host: str, port: int, *, guarded: bool) -> socket.socket:
    """A listening socket. Raises UsageError for an address beyond this machine without tokens."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(f"no address to listen on: {host!r} ({error.strerror})") from error
    family, _, _, _, address = addresses[0]
    if not guarded and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UsageError(
            f"{host} can be reached from other machines: that needs tokens",
            "give --token-file FILE, or set MP_SERVE_TOKENS",
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # The kernel drops a peer that takes nothing any more.
            ms = int(2 * IDLE_S * 1000)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ms)
        listening.bind(address)
        listening.listen(_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}", "choose another --port"
        ) from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Where a client finds a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(service: Serving, idle_s: float = IDLE_S) -> uvicorn.Server:
    """A server that is not yet running: `run(sockets=[...])` runs it until `should_exit`."""
    protocol = type("Protocol", (_Protocol,), {"idle_s": idle_s})
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Server(
        uvicorn.Config(
            service.application(),
            http=protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=_FINISHING_S,
        )
    )


def listen(service: Serving, listening: socket.socket, ready: Callable[[], None]) -> int:
    """Serve until SIGINT or SIGTERM; `ready` is called when connections are taken.

    Requests under way have five seconds to finish. Returns how many calls of the store did not.
    """
    with _own_signals():
        ready()  # the socket listens already: who connects now is served in a moment
        server(service).run(sockets=[listening])
    return service.busy


@contextmanager
def _own_signals() -> Iterator[None]:
    """Uvicorn raises a signal again once it has stopped; by then it has done its work."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    before: dict[int, Any] = {
        number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
