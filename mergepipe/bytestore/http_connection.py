"""Connections to an http server: kept open, used from many threads, and never waited for for ever.

The standard library's http.client speaks the protocol: it reads a body straight into the caller's
memory. What it lacks is here: sockets that know the pace of an exchange and how many bytes it may
bring, a pool, and proxies as the environment names them.
"""

import base64
import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import threading
import urllib.request
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit

from mergepipe.bytestore.pace import IDLE_S, Pace
from mergepipe.bytestore.protocol import Buffer
from mergepipe.errors import RemoteRefused, UsageError

_KEPT_OPEN = 8
_SEND_BYTES = 1 << 20
_READ_AHEAD_BYTES = 64 << 10
_HEADERS_BYTES = 256 << 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class PacedSocket:
    """What http.client needs of a socket, with the pace and the allowance of one exchange."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.pace = Pace()
        self.ended = False
        """Whether a read met the end of what the other side sends."""
        self._allowance = 0

    def begin(self, pace: Pace) -> None:
        """An exchange begins: a request is sent, and headers come."""
        self.pace = pace
        self._allowance = _HEADERS_BYTES

    def allow(self, allowance: int) -> None:
        """The headers are there; a body of so many bytes may follow."""
        self._allowance += allowance

    def sendall(self, data: Buffer) -> None:
        """Send all of it, however slowly, as long as it moves."""
        pending = memoryview(data).cast("B")
        while pending:
            self._inner.settimeout(self.pace.left())
            count = self._inner.send(pending[:_SEND_BYTES])
            self.pace.moved(count)
            pending = pending[count:]

    def send_file(self, descriptor: int, size: int) -> bool:
        """Send `size` bytes of a file from its start without reading them; False if TLS forbids."""
        if isinstance(self._inner, ssl.SSLSocket):
            return False
        at = 0
        writable = select.poll()
        writable.register(self._inner, select.POLLOUT)
        self._inner.settimeout(self.pace.left())
        while at < size:
            try:
                count = os.sendfile(self._inner.fileno(), descriptor, at, size - at)
            except BlockingIOError:
                writable.poll(self.pace.left() * 1000)
                continue
            if count == 0:
                raise OSError("a temporary file was cut off")
            self.pace.moved(count)
            at += count
        return True

    def makefile(self, mode: str) -> IO[bytes]:
        """The bytes that come."""
        return io.BufferedReader(_PacedReader(self), _READ_AHEAD_BYTES)

    def raw(self) -> io.RawIOBase:
        """An unbuffered file; the socket lives until both are closed."""
        raw: io.RawIOBase = self._inner.makefile("rb", buffering=0)
        return raw

    def receive_into(self, raw: io.RawIOBase, out: memoryview) -> int:
        """One read. Raises Stalled, and RemoteRefused when the allowance is used up."""
        if self._allowance <= 0:
            raise RemoteRefused("the remote sends more than it was asked for")
        self._inner.settimeout(self.pace.left())
        count = raw.readinto(out[: self._allowance]) or 0
        self.ended = not count
        self._allowance -= count
        self.pace.moved(count)
        return int(count)

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read: on an unused connection that would be its end."""
        readable = select.poll()
        readable.register(self._inner, select.POLLIN)
        return not readable.poll(0)

    def close(self) -> None:
        """Close, once readers are closed too."""
        self._inner.close()


class _PacedReader(io.RawIOBase):
    def __init__(self, owner: PacedSocket) -> None:
        self._owner = owner
        self._raw = owner.raw()

    def readable(self) -> bool:
        return True

    def readinto(self, out: Buffer) -> int:  # type: ignore[override]
        return self._owner.receive_into(self._raw, memoryview(out))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Plain(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock = PacedSocket(self.sock)


class _Secure(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock = PacedSocket(self.sock)


def paced(connection: http.client.HTTPConnection) -> PacedSocket:
    """The socket of an open connection from `Connections`."""
    assert isinstance(connection.sock, PacedSocket)
    return connection.sock


class Connections:
    """Connections to one server. Any thread may take one, and gives it back when it is clean."""

    def __init__(self, url: str, idle_s: float = IDLE_S) -> None:
        parts = _checked(url)
        self.secure = parts.scheme == "https"
        self.path = parts.path.rstrip("/")
        self.idle_s = idle_s
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self.secure else 80)
        self._proxy = _proxy(parts.scheme, self._host, self._port)
        # Verifies certificate and name, against the system's authorities or SSL_CERT_FILE.
        self._tls = ssl.create_default_context() if self.secure else None
        self._free: list[http.client.HTTPConnection] = []
        self._owner = os.getpid()
        self._lock = threading.Lock()

    @property
    def target(self) -> str:
        """What stands before a path in a request: a proxy without a tunnel needs the whole URL."""
        if self._proxy is None or self.secure:
            return self.path
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}{self.path}"

    @property
    def proxy(self) -> str | None:
        """Host and port of the proxy that connections go through, if any."""
        if self._proxy is None:
            return None
        return f"{self._proxy.hostname}:{self._proxy.port or 80}"

    @property
    def proxy_authorization(self) -> str | None:
        """The header for a proxy that is asked without a tunnel."""
        return None if self.secure or self._proxy is None else _credentials(self._proxy)

    def take(self) -> tuple[http.client.HTTPConnection, bool]:
        """An open connection, and whether it was used before."""
        with self._lock:
            if self._owner != os.getpid():  # after a fork they are the parent's
                self._free, self._owner = [], os.getpid()
            while self._free:
                free = self._free.pop()
                if free.sock is not None and paced(free).is_quiet():
                    return free, True
                free.close()
        fresh = self._new()
        fresh.connect()
        return fresh, False

    def give(self, connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose last reply was read to its end."""
        with self._lock:
            if connection.sock is not None and len(self._free) < _KEPT_OPEN:
                self._free.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            while self._free:
                with contextlib.suppress(OSError):
                    self._free.pop().close()

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or 80
        if self._tls is None:
            return _Plain(host, port, timeout=self.idle_s)
        connection = _Secure(host, port, timeout=self.idle_s, context=self._tls)
        if self._proxy is not None:
            login = _credentials(self._proxy)
            headers = {"Proxy-Authorization": login} if login else {}
            connection.set_tunnel(self._host, self._port, headers)
        return connection


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("not the URL of an http server", "https://host/path, without a query")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError("a URL with a name, password or query is not used")
    return parts


def _proxy(scheme: str, host: str, port: int) -> SplitResult | None:
    """The proxy that http_proxy, https_proxy and no_proxy ask for; none to this machine itself."""
    named = urllib.request.getproxies_environment().get(scheme)
    if not named or host in _LOOPBACK:
        return None
    if urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise UsageError(
            f"{scheme}_proxy does not name an http proxy", "http://host:port is what works"
        )
    return proxy


def _credentials(proxy: SplitResult) -> str | None:
    if proxy.username is None:
        return None
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return "Basic " + base64.b64encode(login.encode()).decode()
