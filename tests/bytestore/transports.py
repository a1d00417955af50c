"""Every way to a byte store, each through real parts: what the conformance suite runs on."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.ssh import ssh_store
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import MergepipeError
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.listening import Serving, bind, server, url_of
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.stdio import serve_stdio
from mergepipe.transfer.serving.surface import EVERYTHING
from tests.bytestore import plain_server, sshd


@contextmanager
def serving(service: Serving, idle_s: float = IDLE_S) -> Iterator[str]:
    """A real server on a free port of loopback; gives its URL."""
    listening = bind("127.0.0.1", 0, guarded=False)
    running = server(service, idle_s)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield url_of(listening)
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def memory(folder: Path) -> Iterator[ByteStore]:
    with MemoryByteStore() as store:
        yield store


@contextmanager
def local(folder: Path) -> Iterator[ByteStore]:
    with LocalByteStore(folder) as store:
        yield store


@contextmanager
def forwarding(folder: Path) -> Iterator[ByteStore]:
    with MemoryByteStore() as behind, ForwardingStore(behind) as store:
        yield store


@contextmanager
def http(folder: Path) -> Iterator[ByteStore]:
    with (
        LocalByteStore(folder) as served,
        serving(Service(Offer(served, surface=EVERYTHING))) as url,
        HttpByteStore(url) as store,
    ):
        yield store


class PipePeer:
    """A server on a thread of this process, at the other end of two pipes."""

    def __init__(self, serve: Callable[[BinaryIO, BinaryIO], None]) -> None:
        theirs, self.writing = os.pipe()
        self.reading, back = os.pipe()

        def run() -> None:
            with os.fdopen(theirs, "rb", 0) as stdin, os.fdopen(back, "wb", 0) as stdout:
                serve(stdin, stdout)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def end(self) -> MergepipeError | None:
        os.close(self.writing)
        os.close(self.reading)
        self.join()
        return None

    def join(self) -> None:
        """Wait for the server to end."""
        self._thread.join()


@contextmanager
def stdio(folder: Path) -> Iterator[ByteStore]:
    with LocalByteStore(folder) as served:

        def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
            serve_stdio(served, stdin, stdout, surface=EVERYTHING)

        with StdioByteStore(lambda: PipePeer(serve), "a pipe") as store:
            yield store


@contextmanager
def ssh(folder: Path) -> Iterator[ByteStore]:
    if sshd.SSHD is None:
        pytest.skip("no sshd here")
    program = shlex.join([sys.executable, str(Path(plain_server.__file__).absolute())])
    served = folder / "it's served"
    served.mkdir()
    with (
        sshd.running(folder / "sshd") as server,
        ssh_store(
            "127.0.0.1", str(served), port=server.port, command=server.command, program=program
        ) as store,
    ):
        yield store


TRANSPORTS: dict[str, Callable[[Path], AbstractContextManager[ByteStore]]] = {
    "memory": memory,
    "forwarding": forwarding,
    "local": local,
    "http": http,
    "stdio": stdio,
    "ssh": ssh,
}
