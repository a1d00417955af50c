"""Uploads to a hub that never end, are not what they say, or name what is not there."""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from .hub_uploads import (
    COMMIT,
    SHORT_S,
    WAYS,
    Hub,
    Request,
    commit_of,
    commit_of_uploaded,
    commit_with,
    new_hub,
)
from .limits import LIMIT_S, Tally

_PIECE = 64 << 10
_LIMIT = "256KiB"


def in_rounds(many: int) -> pytest.MarkDecorator:
    """One of each kind with every change, and many of each in the long form."""
    return pytest.mark.parametrize("rounds", [1, pytest.param(many, marks=pytest.mark.slow)])


def _content_of_a_file(hub: Hub) -> Iterator[bytes]:
    yield b'{"key": "header", "value": {"summary": "x"}}\n'
    yield b'{"key": "file", "value": {"path": "a.bin", "encoding": "base64", "content": "'
    while True:
        yield b"QUJD" * (_PIECE // 4)


def _one_line(hub: Hub) -> Iterator[bytes]:
    yield b'{"key": "header", "value": {"summary": "'
    while True:
        yield b"x" * _PIECE


def _lines(hub: Hub) -> Iterator[bytes]:
    yield b'{"key": "header", "value": {"summary": "x"}}\n'
    while True:
        yield b'{"key": "deletedFile", "value": {"path": "none"}}\n' * 1000


def _bytes(hub: Hub) -> Iterator[bytes]:
    piece = hub.chance.bytes(_PIECE)
    while True:
        yield piece


def _chunks(hub: Hub) -> Iterator[bytes]:
    length = (4096).to_bytes(3, "little")
    chunk = b"\0" + length + b"\0" + length + hub.chance.bytes(4096)
    while True:
        yield chunk * 16


def _drops(hub: Hub) -> Iterator[bytes]:
    yield b'{"key": "header", "value": {"summary": "'
    while True:
        time.sleep(0.02)
        yield b"x"


Body = Callable[[Hub], Iterator[bytes]]
ENDLESS: dict[str, tuple[str, Body]] = {
    "content": (COMMIT, _content_of_a_file),
    "line": (COMMIT, _one_line),
    "lines": (COMMIT, _lines),
    "drops": (COMMIT, _drops),
    "noise": (COMMIT, _bytes),
    "document": ("/api/repos/create", _one_line),
    "git-lfs": ("git-lfs", _bytes),
    "xorb": ("xorb", _chunks),
    "shard": ("shard", _bytes),
}


@in_rounds(25)
def test_bodies_that_never_end(rounds: int) -> None:
    tally = Tally("hub upload, endless")
    with new_hub(seed=71, limit=_LIMIT, idle_s=SHORT_S) as hub:
        for kind in (*ENDLESS,) * rounds:
            where, body = ENDLESS[kind]
            path, content = hub.new_file()
            request = Request("POST", where)
            if where in WAYS:
                request = hub.carrier(where, path, content)
            status = _send_endless(hub, request, body(hub))
            assert status in (0, 400, 408, 413), status
            tally.note("runs", kind, str(status) if status else "hung up")
            hub.goes_on()
            if hub.waiting:
                # What waits for a shard counts, too: a server that ends forgets it.
                hub.kill()
                hub.start()
                hub.store(*hub.new_file())
    tally.show()


def _send_endless(hub: Hub, request: Request, pieces: Iterator[bytes]) -> int:
    """The status of the reply; 0 where the server hangs up without one."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=LIMIT_S) as line:
        said = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(request.head + b"Transfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        with suppress(ConnectionResetError):
            said = line.recv(4096)
    return int(said.split(b" ", 2)[1]) if said else 0


WRONG = ("sha256", "longer", "shorter", "size", "xorb", "shard", "shard size")


@in_rounds(30)
def test_files_that_are_not_what_they_are_said_to_be(rounds: int) -> None:
    tally = Tally("hub upload, wrong")
    with new_hub(seed=72) as hub:
        for kind in WRONG * rounds:
            path, content = hub.new_file()
            at = int(hub.chance.integers(len(content)))
            flipped = content[:at] + bytes([content[at] ^ 1 << int(hub.chance.integers(8))])
            flipped += content[at + 1 :]
            status, reply = hub.ask(_wrong(hub, kind, path, content, flipped, at))
            assert status in (400, 413), reply
            assert json.loads(reply)["error"]
            sha256 = hashlib.sha256(content).hexdigest()
            status, reply = hub.ask(
                commit_of_uploaded(path, sha256, len(content) + (kind == "size"))
            )
            assert status == 400, reply
            assert not hub.check(path, content, came=False)
            hub.goes_on()
            tally.note("runs", kind)
    tally.show()


def _wrong(hub: Hub, kind: str, path: str, content: bytes, flipped: bytes, at: int) -> Request:
    if kind in ("sha256", "longer", "shorter"):
        good = hub.carrier("git-lfs", path, content)
        bodies = {"sha256": flipped, "longer": content + flipped, "shorter": content[:at]}
        return Request("PUT", good.path, bodies[kind])
    if kind == "size":
        return commit_of_uploaded(path, hashlib.sha256(content).hexdigest(), len(content) - 1)
    good = hub.carrier("shard" if kind.startswith("shard") else "xorb", path, content)
    body = bytearray(good.body)
    if kind == "xorb":
        body[8 + at % 1000] ^= 1
    elif kind == "shard":
        body[-(48 * 3) + at % 32] ^= 1  # of the SHA-256
    else:
        body[48 + 48 + 36] ^= 1  # of how many bytes its part has
    return Request("POST", good.path, bytes(body), good.headers)


@in_rounds(50)
def test_commits_that_name_what_is_not_there(rounds: int) -> None:
    tally = Tally("hub upload, missing")
    with new_hub(seed=73) as hub:
        for kind in ("uploaded", "deleted", "shards", "folder") * rounds:
            path, content = hub.new_file()
            name = hub.chance.bytes(32).hex()
            status, reply = hub.ask(_missing(kind, path, name))
            assert status in (400, 404), reply
            assert not hub.check(path, content, came=False)
            hub.goes_on()
            tally.note("runs", kind, str(status))
    tally.show()


def _missing(kind: str, path: str, name: str) -> Request:
    if kind == "uploaded":
        return commit_of_uploaded(path, name, 4000)
    if kind in ("deleted", "folder"):
        key = "deletedFile" if kind == "deleted" else "deletedFolder"
        return commit_with({"key": key, "value": {"path": name}})
    index = json.dumps({"metadata": {}, "weight_map": {"w": f"{name}.safetensors"}}).encode()
    return commit_of("model.safetensors.index.json", index)
