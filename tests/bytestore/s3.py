"""A real S3 server for tests: moto, in a process of its own, and lines to it that break."""

import atexit
import contextlib
import functools
import itertools
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mergepipe.bytestore.cloud import CloudByteStore, open_bucket


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running server."""

    port: int
    name: str

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a user would set; `port` for a line that leads there."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "HOME": "/nonexistent",
        }

    def store(self, prefix: str = "models/llama", port: int | None = None) -> CloudByteStore:
        """The byte store there."""
        return open_bucket("s3", self.name, prefix, self.environment(port))


_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Bucket]]:
    """The server of this process's tests; what it gives makes a new bucket."""
    port = _server()

    def make(name: str = "") -> Bucket:
        name = name or f"bucket-{next(_NUMBERS)}"
        url = f"http://127.0.0.1:{port}/{name}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
        return Bucket(port, name)

    yield make


_NUMBERS = itertools.count()


@functools.cache
def _server() -> int:
    """Start it, on a port that it picks itself; it takes seconds, and ends with this process."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(process.kill)
    assert process.stdout is not None
    return int(process.stdout.readline())


@contextlib.contextmanager
def losing_replies(port: int, lose: Callable[[bytes], bool]) -> Iterator[int]:
    """A port that leads to `port`, but where `lose` of a request's first line is true: no reply.

    The server still gets such a request whole and carries it out; then the line breaks.
    """
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            lost = False
            request = b""
            while not lost:
                while b"\r\n\r\n" not in request:
                    if not (piece := client.recv(65536)):
                        return
                    request += piece
                head, _, body = request.partition(b"\r\n\r\n")
                missing = _content_length(head) - len(body)
                while missing > 0:
                    piece = client.recv(65536)
                    request += piece
                    missing -= len(piece)
                lost = lose(head.split(b"\r\n")[0])
                server.sendall(request)
                reply = _reply(server, head.startswith(b"HEAD"))
                if not lost:
                    client.sendall(reply)
                request = b""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=_quietly, args=(serve, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def _quietly(serve: Callable[[socket.socket], None], client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        serve(client)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _reply(server: socket.socket, headers_only: bool) -> bytes:
    reply = b""
    while b"\r\n\r\n" not in reply:
        if not (piece := server.recv(65536)):
            return reply
        reply += piece
    head, _, body = reply.partition(b"\r\n\r\n")
    missing = 0 if headers_only else _content_length(head) - len(body)
    while missing > 0 and (piece := server.recv(65536)):
        reply += piece
        missing -= len(piece)
    return reply
