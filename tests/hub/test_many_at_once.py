"""Many clients, and slow ones: each has its share, and who takes nothing is let go."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.site import Site
from tests.bytestore.transports import serving
from tests.patience import LIMIT_S, patiences

MIB = 1 << 20
SIZE = 16 * MIB
PLACE = "/zoo/main/resolve/main/data.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository `zoo` with one large file on `main`."""
    place = tmp_path_factory.mktemp("many")
    (place / "data").mkdir()
    (place / "data" / "data.bin").write_bytes(np.random.default_rng(1).bytes(SIZE))
    with Repository.init(place / "zoo", who="Ada") as repository:
        repository.commit(place / "data", branch="main")
    return place


@contextmanager
def hub(folder: Path, idle_s: float, downloads: int = 64) -> Iterator[str]:
    """A server in this process, so that its patience can be short."""
    with (
        Repository.open(folder / "zoo") as repository,
        Repositories(Repository) as repositories,
    ):
        repositories.add(repository)
        with (
            Site(repositories, idle_s=idle_s, downloads=downloads) as site,
            serving(site, idle_s) as url,
        ):
            yield url


@contextmanager
def slow_reader(url: str) -> Iterator[socket.socket]:
    """A client that asks for everything and takes next to nothing."""
    place = urlsplit(url)
    assert place.hostname is not None and place.port is not None
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((place.hostname, place.port))
        line.sendall(f"GET {PLACE} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 200"
        yield line


def test_a_slow_reader_is_let_go_and_others_served(folder: Path) -> None:
    content = (folder / "data" / "data.bin").read_bytes()
    served = b""
    for idle_s in patiences(0.5):
        with hub(folder, idle_s, downloads=1) as url, slow_reader(url) as line:
            # The only place is taken: the next client waits until the slow one has lost it.
            with suppress(IncompleteRead, OSError), urlopen(url + PLACE) as reply:
                served = reply.read()
            if served != content:
                continue  # this machine is as slow as a slow reader
            came = 0
            with suppress(ConnectionResetError):
                while piece := line.recv(MIB):
                    came += len(piece)
            assert came < SIZE
            break
    assert served == content


def test_sixteen_clients_get_the_same_bytes(folder: Path) -> None:
    content = (folder / "data" / "data.bin").read_bytes()
    found: list[bytes] = []

    def take(url: str) -> None:
        with urlopen(url + PLACE) as reply:
            found.append(reply.read())

    with hub(folder, idle_s=LIMIT_S) as url:
        threads = [threading.Thread(target=take, args=(url,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [content] * 16


def test_more_than_are_served_at_once_come_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergepipe.hub.application._WAIT_S", 0.1)
    with hub(folder, idle_s=LIMIT_S, downloads=1) as url, slow_reader(url):
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as line:
            line.sendall(f"GET {PLACE} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            assert line.recv(12) == b"HTTP/1.1 429"


def test_a_body_that_stands_still_is_given_up(folder: Path) -> None:
    with hub(folder, idle_s=0.5) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as line:
            line.sendall(
                f"POST /api/models/zoo/main/commit/main HTTP/1.1\r\nHost: {place.netloc}\r\n"
                "Content-Length: 99999\r\n\r\n"
                '{"key": "file", "value": {"content": "QUJD'.encode()
            )
            assert line.recv(12) == b"HTTP/1.1 408"
        assert not [path for path in (folder / "zoo/.mergepipe/tmp").rglob("*") if path.is_file()]
