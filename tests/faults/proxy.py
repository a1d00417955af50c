"""A line between a client and a real server that breaks where it is told to.

Bytes and exchanges are counted over all connections since `arm`, so a fault may meet any of them.
"""

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

_PIECE = 16 << 10
_LOOK_S = 0.02
_REFUSALS = (b"500 Internal Server Error", b"503 Service Unavailable", b"429 Too Many Requests")
_NO_BODY = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Effect(StrEnum):
    """What happens to a connection."""

    CUT = "cut"
    STALL = "stall"
    LOST = "lost reply"
    REFUSED = "5xx before"
    GATEWAY = "5xx after"


@dataclass(frozen=True, slots=True)
class Fault:
    """CUT and STALL strike at byte `at` of one direction, the others at exchange `at`."""

    effect: Effect
    at: int
    to_server: bool = True


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed: bytes to the server, bytes from it, exchanges; and the faults that struck."""

    up: int
    down: int
    exchanges: int
    struck: tuple[Fault, ...]


class Proxy:
    """Passes on what comes to `port`, to `server_port`; that may change as servers come and go."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._struck: list[Fault] = []
        self._moved = {True: 0, False: 0}
        self._exchanges = 0
        self._open: set[_Connection] = set()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def arm(self, faults: Sequence[Fault] = ()) -> None:
        """Hang up on all who are left, count from nothing, and let these faults strike."""
        while True:
            with self._lock:
                if not self._open:
                    self._faults, self._struck = list(faults), []
                    self._moved, self._exchanges = {True: 0, False: 0}, 0
                    return
                left = list(self._open)
                self._faults = []
            for connection in left:
                connection.end()
            time.sleep(0.001)

    @property
    def traffic(self) -> Traffic:
        """Since `arm`."""
        with self._lock:
            return Traffic(
                self._moved[True], self._moved[False], self._exchanges, tuple(self._struck)
            )

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.arm()

    def pass_on(self, to_server: bool, count: int) -> tuple[int, Effect | None]:
        """How many of `count` bytes may pass, and what happens after them."""
        with self._lock:
            begin = self._moved[to_server]
            for fault in self._faults:
                by_bytes = fault.effect in (Effect.CUT, Effect.STALL)
                if by_bytes and fault.to_server is to_server and fault.at < begin + count:
                    self._strike(fault)
                    count = max(0, fault.at - begin)
                    self._moved[to_server] += count
                    return count, fault.effect
            self._moved[to_server] += count
            return count, None

    def begin_exchange(self) -> Effect | None:
        """An exchange begins; what happens to it."""
        with self._lock:
            number = self._exchanges
            self._exchanges += 1
            for fault in self._faults:
                if fault.effect not in (Effect.CUT, Effect.STALL) and fault.at == number:
                    self._strike(fault)
                    return fault.effect
        return None

    def _strike(self, fault: Fault) -> None:
        self._faults.remove(fault)
        self._struck.append(fault)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port))
        except OSError:
            _reset(client)
            return
        connection = _Connection(self, client, server)
        with self._lock:
            self._open.add(connection)
        try:
            connection.run()
        finally:
            with self._lock:
                self._open.discard(connection)


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._over = threading.Event()
        self._stalled = threading.Event()
        self._answering = True  # since the last request began, a reply has
        self._effect: Effect | None = None

    def run(self) -> None:
        other = threading.Thread(target=self._from_server, daemon=True)
        other.start()
        self._from_client()
        other.join()
        for end in (self._client, self._server):
            end.close()

    def end(self, *, reset: bool = False) -> None:
        self._over.set()
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                if reset:
                    _linger(end)
                end.shutdown(socket.SHUT_RDWR)

    def _from_client(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._receive(self._client):
                if self._answering:
                    self._answering = False
                    self._effect = self._proxy.begin_exchange()
                    if self._effect is Effect.REFUSED:
                        _read_request(self._client, piece)
                        reason = random.choice(_REFUSALS)
                        self._client.sendall(b"HTTP/1.1 " + reason + _NO_BODY)
                        break
                if not self._send(self._server, piece, to_server=True):
                    break
        self.end()

    def _from_server(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._receive(self._server):
                self._answering = True
                if self._effect is Effect.LOST:
                    self.end(reset=random.random() < 0.5)
                    return
                if self._effect is Effect.GATEWAY:
                    self._client.sendall(b"HTTP/1.1 502 Bad Gateway" + _NO_BODY)
                    break
                if not self._send(self._client, piece, to_server=False):
                    break
        self.end()

    def _receive(self, source: socket.socket) -> bytes:
        piece = source.recv(_PIECE)
        if self._stalled.is_set():
            self._wait()
            return b""
        return piece

    def _send(self, sink: socket.socket, piece: bytes, *, to_server: bool) -> bool:
        """Pass on what may pass; whether the connection lives on."""
        count, effect = self._proxy.pass_on(to_server, len(piece))
        sink.sendall(piece[:count])
        if effect is Effect.CUT:
            self.end(reset=random.random() < 0.5)
        elif effect is Effect.STALL:
            self._stalled.set()
            self._wait()
        return effect is None

    def _wait(self) -> None:
        """Until the client, or the test, has had enough."""
        gone = select.poll()
        gone.register(self._client, select.POLLRDHUP)
        while not self._over.wait(_LOOK_S):
            if gone.poll(0):
                self.end()


def _read_request(client: socket.socket, head: bytes) -> None:
    """The rest of a request, whose sender would not hear the answer if we hung up before."""
    while b"\r\n\r\n" not in head:
        if not (piece := client.recv(_PIECE)):
            return
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body) if lengths else 0
    while missing > 0 and (piece := client.recv(_PIECE)):
        missing -= len(piece)


def _linger(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        _linger(client)
        client.close()


@contextmanager
def proxied(server_port: int) -> Iterator[Proxy]:
    """A proxy for as long as the block lasts."""
    proxy = Proxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
