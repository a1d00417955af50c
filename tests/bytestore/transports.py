"""Every way to a byte store, each through real parts: what the conformance suite runs on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.listening import bind, server, url_of
from mergepipe.transfer.serving.surface import EVERYTHING


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """A real server on a free port of loopback; gives its URL."""
    listening = bind("127.0.0.1", 0, guarded=False)
    running = server(service)
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
def http(folder: Path) -> Iterator[ByteStore]:
    with (
        LocalByteStore(folder) as served,
        serving(Service(served, surface=EVERYTHING)) as url,
        HttpByteStore(url) as store,
    ):
        yield store


TRANSPORTS: dict[str, Callable[[Path], AbstractContextManager[ByteStore]]] = {
    "memory": memory,
    "local": local,
    "http": http,
}
