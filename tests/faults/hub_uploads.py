"""A hub's server that may be killed, and what uploads to it have to leave behind.

After each: the branch is where it was or holds the whole of what was sent, and the upload works
when it is tried again.
"""

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from tests.hub import xet_bodies
from tests.hub.conftest import WHO
from tests.properties.trees import scratch

from .children import Child, serve_hub_in_child
from .limits import LIMIT_S, soon

SHORT_S = 2.0
"""The patience of a server that is to lose it, in seconds."""
_BYTES = 40_000
_FSCK_EVERY = 20
COMMIT = "/api/models/zoo/main/commit/main"
WAYS = ("commit", "git-lfs", "xorb", "shard")
"""Requests that carry a file, or make one."""


@dataclass(frozen=True)
class Request:
    """What is asked of a hub."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def head(self) -> bytes:
        """As it goes over the line, but for the body and how long that is."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "".join(f"{line}\r\n" for line in lines).encode()

    @property
    def raw(self) -> bytes:
        """All of it, as it goes over the line."""
        return self.head + f"Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass
class Hub:
    """A server that may be killed, and what its repository is to hold."""

    folder: Path
    chance: np.random.Generator
    files: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    child: Child | None = None
    idle_s: float = LIMIT_S
    runs: int = 0
    waiting: int = 0
    """Files that lie in `tmp` and may: chunks of uploads by xet that were not gone on with."""

    def start(self) -> None:
        self.child = Child(serve_hub_in_child, self.folder, self.idle_s)
        self.port = int(str(self.child.wait_until_it_begins()))

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.finish()
            self.child = None
            self.waiting = 0

    def ask(self, request: Request) -> tuple[int, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        try:
            line.request(request.method, request.path, request.body, dict(request.headers))
            reply = line.getresponse()
            return reply.status, reply.read()
        finally:
            line.close()

    def carrier(self, way: str, path: str, content: bytes) -> Request:
        """The request that carries a file in one of the ways, after all that go before it."""
        if way == "commit":
            return commit_of(path, content)
        if way == "git-lfs":
            return Request("PUT", self.place(content), content)
        status, reply = self.ask(Request("GET", "/api/models/zoo/main/xet-write-token/main"))
        assert status == 200, reply
        told = json.loads(reply)
        place = "/" + told["casUrl"].split("/", 3)[3]
        headers = (("Authorization", f"Bearer {told['accessToken']}"),)
        pieces = [content[: _BYTES // 3], content[_BYTES // 3 :], b"of another file"]
        name, body = xet_bodies.xorb(pieces)
        xorb = Request("POST", f"{place}/v1/xorbs/default/{name}", body, headers)
        if way == "xorb":
            return xorb
        status, reply = self.ask(xorb)
        assert status == 200, reply
        self.waiting += 1
        parts = [(name, len(content), 0, 2)]
        body = xet_bodies.shard(hashlib.sha256(content).hexdigest(), parts)
        return Request("POST", f"{place}/v1/shards", body, headers)

    def place(self, content: bytes) -> str:
        """Where git-lfs is to put a file."""
        one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        asked = json.dumps({"operation": "upload", "objects": [one]}).encode()
        place = "/zoo/main.git/info/lfs/objects/batch"
        status, reply = self.ask(Request("POST", place, asked))
        assert status == 200, reply
        return (
            "/" + str(json.loads(reply)["objects"][0]["actions"]["upload"]["href"]).split("/", 3)[3]
        )

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
        """Files in `tmp` that have no reason to be there; as many as there are, if any has none."""
        found = [path for path in (self.folder / ".mergepipe/tmp").rglob("*") if path.is_file()]
        return found if len(found) > self.waiting else []

    def store(self, path: str, content: bytes) -> None:
        """The upload, undisturbed."""
        while (answer := self.ask(commit_of(path, content)))[0] == 408:
            pass  # a machine so slow that a server of little patience lost it
        status, reply = answer
        assert status == 200, reply
        assert self.check(path, content, came=True)

    def goes_on(self) -> None:
        """Whether nothing is left behind, and the next upload works."""
        assert soon(lambda: not self.left_behind())
        self.store(*self.new_file())
        assert not self.left_behind()


def commit_of(path: str, content: bytes, parent: str = "") -> Request:
    """A commit of one file that comes with it."""
    value = {"content": base64.b64encode(content).decode(), "path": path, "encoding": "base64"}
    return commit_with({"key": "file", "value": value}, parent=parent)


def commit_of_uploaded(path: str, sha256: str, size: int) -> Request:
    """A commit of one file that is to be here."""
    value = {"path": path, "algo": "sha256", "oid": sha256, "size": size}
    return commit_with({"key": "lfsFile", "value": value})


def commit_with(*lines: object, parent: str = "") -> Request:
    """A commit of these lines."""
    header = {"key": "header", "value": {"summary": "Try", "parentCommit": parent}}
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (header, *lines))
    return Request("POST", COMMIT, body)


@contextmanager
def new_hub(seed: int, limit: str = "", idle_s: float = LIMIT_S) -> Iterator[Hub]:
    """A hub with one file; `limit`: bytes that it takes in; `idle_s`: its patience."""
    with scratch() as made:
        folder = made / "zoo"
        hub = Hub(folder, np.random.default_rng(seed), {"first.txt": b"first"}, idle_s=idle_s)
        with Repository.init(folder, who=WHO) as repository:
            (folder / "first.txt").write_bytes(b"first")
            repository.commit(folder / "first.txt", branch="main")
        if limit:
            config = folder / ".mergepipe/config.toml"
            text = config.read_text()
            assert '# limit = "64GiB"' in text
            config.write_text(text.replace('# limit = "64GiB"', f'limit = "{limit}"'))
        hub.start()
        try:
            yield hub
        finally:
            hub.kill()
