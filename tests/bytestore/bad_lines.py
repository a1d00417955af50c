"""Servers that misbehave, and lines that break, on real sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[socket.socket, bytes], None]
"""What a server does to a client that sent this head of a request."""


@contextmanager
def answering(script: Script) -> Iterator[str]:
    """A server that does as the script says on each connection; gives its URL."""

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := client.recv(65536)):
                return
            head += piece
        script(client, head)
        # Closing with a request's body unread would reset the line, and with it the answer.
        client.shutdown(socket.SHUT_WR)
        until_it_hangs_up(client)

    with _listening(serve) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def cutting(port: int, budgets: Callable[[], tuple[int, int]]) -> Iterator[int]:
    """A port that leads to `port`, over lines that break.

    Each line passes on so many bytes to the server, and so many from it, and is cut after either.
    """

    def serve(client: socket.socket) -> None:
        to_server, to_client = budgets()
        with socket.create_connection(("127.0.0.1", port)) as server:
            pumps = [
                threading.Thread(target=_pump, args=(client, server, to_server)),
                threading.Thread(target=_pump, args=(server, client, to_client)),
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    with _listening(serve) as ours:
        yield ours


def trickle(client: socket.socket, data: bytes, pause_s: float) -> None:
    """Send a byte at a time until the client has had enough."""
    with contextlib.suppress(OSError):
        for at in range(len(data)):
            client.sendall(data[at : at + 1])
            time.sleep(pause_s)


def until_it_hangs_up(client: socket.socket) -> None:
    """Say nothing until the client has had enough."""
    while client.recv(65536):
        pass


def flood(client: socket.socket, data: bytes, most: int = 1 << 30) -> None:
    """Send the same again and again until the client has had enough."""
    block = data * max(1, (256 << 10) // len(data))
    with contextlib.suppress(OSError):
        for _ in range(most // len(block)):
            client.sendall(block)


def _pump(source: socket.socket, sink: socket.socket, budget: int) -> None:
    with contextlib.suppress(OSError):
        while budget > 0 and (piece := source.recv(min(65536, budget))):
            sink.sendall(piece)
            budget -= len(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def one(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            serve(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                client, _ = listening.accept()
                threading.Thread(target=one, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
