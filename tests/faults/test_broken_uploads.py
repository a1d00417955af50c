"""Uploads to a hub whose lines break or stand still, whose server is killed, and that race.

After each: the branch is where it was or holds the whole of what was sent, and the upload works
when it is tried again.
"""

import base64
import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from tests.hub.conftest import WHO
from tests.properties.trees import scratch

from .children import Child, serve_hub_in_child
from .limits import Tally, soon

_IDLE_S = 0.5
_BYTES = 40_000
_FSCK_EVERY = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made / "zoo"


@dataclass
class Hub:
    """A server that may be killed, and what its repository is to hold."""

    folder: Path
    chance: np.random.Generator
    files: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    child: Child | None = None
    runs: int = 0

    def start(self) -> None:
        self.child = Child(serve_hub_in_child, self.folder, _IDLE_S)
        self.port = int(str(self.child.wait_until_it_begins()))

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.finish()
            self.child = None

    def request(self, method: str, path: str, body: bytes) -> bytes:
        """A whole request, as it goes over the line."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        try:
            line.request(method, path, body)
            reply = line.getresponse()
            return reply.status, reply.read()
        finally:
            line.close()

    def upload(self, content: bytes) -> str | None:
        """Where a file is to be put; None if it is there."""
        one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        asked = json.dumps({"operation": "upload", "objects": [one]}).encode()
        status, reply = self.ask("POST", "/zoo/main.git/info/lfs/objects/batch", asked)
        assert status == 200, reply
        actions = json.loads(reply)["objects"][0].get("actions")
        if actions is None:
            return None
        return "/" + str(actions["upload"]["href"]).split("/", 3)[3]

    def new_file(self) -> tuple[str, bytes]:
        self.runs += 1
        return f"{self.chance.integers(4)}.bin", self.chance.bytes(_BYTES)

    def check(self, path: str, content: bytes, *, came: bool | None) -> bool:
        """Whether a file came, of which that is known or not; all others are as they were."""
        with Repository.open(self.folder) as repository:
            found = {
                entry.path: b"".join(repository.contents.read_file("main", entry.path))
                for entry in repository.contents.files("main")
            }
            if self.runs % _FSCK_EVERY == 0:
                assert repository.fsck(read_data=True).ok
        after = {**self.files, path: content}
        assert found in (self.files, after)
        arrived = found == after
        assert came in (None, arrived)
        if arrived:
            self.files = after
        return arrived

    def left_behind(self) -> list[Path]:
        return [path for path in (self.folder / ".mergepipe/tmp").rglob("*") if path.is_file()]

    def store(self, path: str, content: bytes) -> None:
        """The upload, undisturbed."""
        status, reply = self.ask("POST", COMMIT, commit_of(path, content))
        assert status == 200, reply
        assert self.check(path, content, came=True)


COMMIT = "/api/models/zoo/main/commit/main"


def commit_of(path: str, content: bytes, parent: str = "") -> bytes:
    header = {"summary": path, "parentCommit": parent}
    value = {"content": base64.b64encode(content).decode(), "path": path, "encoding": "base64"}
    lines = ({"key": "header", "value": header}, {"key": "file", "value": value})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@contextmanager
def hub_in(folder: Path, seed: int) -> Iterator[Hub]:
    hub = Hub(folder, np.random.default_rng(seed), {"first.txt": b"first"})
    with Repository.init(folder, who=WHO) as repository:
        (folder / "first.txt").write_bytes(b"first")
        repository.commit(folder / "first.txt", branch="main")
    hub.start()
    try:
        yield hub
    finally:
        hub.kill()


runs_of_each = pytest.mark.parametrize("runs", [4, pytest.param(200, marks=pytest.mark.slow)])


@runs_of_each
@pytest.mark.parametrize("how", ["cut", "stall"])
def test_lines_that_break(how: str, runs: int, folder: Path) -> None:
    tally = Tally(f"hub upload, {how}")
    with hub_in(folder, seed=61) as hub:
        for number in range(runs):
            path, content = hub.new_file()
            wanted = hub.request("POST", COMMIT, commit_of(path, content))
            place = hub.upload(content) if number % 2 else None
            if place is not None:
                wanted = hub.request("PUT", place, content)
            end = int(hub.chance.integers(1, len(wanted)))
            with socket.create_connection(("127.0.0.1", hub.port)) as line:
                line.sendall(wanted[:end])
                if how == "stall":
                    line.settimeout(60)
                    with suppress(ConnectionResetError):
                        while line.recv(4096):  # until it is let go
                            pass
            assert not hub.check(path, content, came=False)
            assert soon(lambda: not hub.left_behind())
            hub.store(path, content)
            assert not hub.left_behind()
            tally.note("runs", "before" if place is None else "with git-lfs")
    tally.show()


@runs_of_each
def test_servers_that_are_killed(runs: int, folder: Path) -> None:
    tally = Tally("hub upload, server killed")
    with hub_in(folder, seed=62) as hub:
        for _ in range(runs):
            path, content = hub.new_file()
            wanted = hub.request("POST", COMMIT, commit_of(path, content))
            whole = hub.chance.random() < 0.7
            end = len(wanted) if whole else int(hub.chance.integers(1, len(wanted)))
            with socket.create_connection(("127.0.0.1", hub.port)) as line:
                line.settimeout(float(hub.chance.uniform(0.001, 0.06)))
                line.sendall(wanted[:end])
                said = b""
                with suppress(TimeoutError):
                    said = line.recv(4096)
                hub.kill()
            answered = said.startswith(b"HTTP/1.1 200")
            arrived = hub.check(path, content, came=True if answered else None)
            tally.note("runs", "answered" if answered else "arrived" if arrived else "lost")
            hub.start()
            path, content = hub.new_file()
            hub.store(path, content)
            assert not hub.left_behind()
    tally.show()


@runs_of_each
def test_uploads_that_race(runs: int, folder: Path) -> None:
    tally = Tally("hub upload, racing")
    with hub_in(folder, seed=63) as hub:
        for _ in range(runs):
            hub.runs += 1
            _, told = hub.ask("GET", "/api/models/zoo/main", b"")
            parent = str(json.loads(told)["sha"]) if hub.chance.random() < 0.5 else ""
            sent = {f"{number}.txt": hub.chance.bytes(100) for number in range(3)}
            replies: dict[str, int] = {}

            def send(path: str, content: bytes, parent: str, replies: dict[str, int]) -> None:
                replies[path], _ = hub.ask("POST", COMMIT, commit_of(path, content, parent))

            threads = [
                threading.Thread(target=send, args=(path, content, parent, replies))
                for path, content in sent.items()
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            won = [path for path, status in replies.items() if status == 200]
            assert sorted(replies.values()) == ([200, 412, 412] if parent else [200] * 3)
            hub.files |= {path: sent[path] for path in won[:-1]}
            assert hub.check(won[-1], sent[won[-1]], came=True)
            assert not hub.left_behind()
            tally.note("runs", "with a parent" if parent else "without")
    tally.show()
