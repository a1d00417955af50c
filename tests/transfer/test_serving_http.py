"""What the http server lets clients do, and what it does about those that misbehave."""

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from starlette.requests import Request

from mergepipe.bytestore import wire
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import (
    AuthenticationError,
    ConfigError,
    MergepipeError,
    NoSpace,
    RemoteRefused,
    UsageError,
)
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.http_bodies import drain
from mergepipe.transfer.serving.listening import bind
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.surface import EVERYTHING, REPOSITORY, Surface
from mergepipe.transfer.serving.tokens import Tokens
from tests.bytestore.transports import serving

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
PACK = f"packs/{'a' * 64}.pack"
TOKENS = Tokens.parse([f"read {READ}", f"write {WRITE}  # for pushes"], "a test")


@contextmanager
def served(
    store: ByteStore,
    tokens: Tokens | None = None,
    *,
    surface: Surface = REPOSITORY,
    read_only: bool = False,
    idle_s: float = 30.0,
) -> Iterator[str]:
    offer = Offer(store, surface=surface, read_only=read_only)
    with serving(Service(offer, tokens, idle_s=idle_s), idle_s) as url:
        yield url


@pytest.fixture
def plain() -> MemoryByteStore:
    store = MemoryByteStore()
    store.put("HEAD", b"ref: refs/heads/main")
    store.put("refs/heads/main", b"1" * 32)
    store.put(PACK, b"packed")
    for hidden in ("config.toml", "refs/remotes/origin/main", "packs/tmp", "hooks/pre-commit"):
        store.put(hidden, b"hidden")
    return store


def ask(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """One request, spelled exactly so."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    # A server may answer, and hang up, before it has seen all of a body that it refuses.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(body)
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, response.read()


def test_others_see_refs_and_packs_and_no_more(plain: MemoryByteStore) -> None:
    with served(plain) as url, HttpByteStore(url) as store:
        assert store.get("HEAD") == b"ref: refs/heads/main"
        assert store.values("refs/") == {"refs/heads/main": b"1" * 32}
        assert list(store.list("packs/")) == [PACK]
        for key in ("config.toml", "refs/remotes/origin/main", "packs/tmp", "hooks/pre-commit"):
            with pytest.raises(RemoteRefused):
                store.get(key)
            with pytest.raises(RemoteRefused):
                store.put(key, b"x")
        for prefix in ("", "hooks/", "refs/remotes/", "packs"):
            with pytest.raises(RemoteRefused):
                list(store.list(prefix))
        for refused in (
            lambda: store.put("refs/heads/main", b"x"),  # only by compare and swap
            lambda: store.put("HEAD", b"x"),
            lambda: store.delete("refs/heads/main"),
            lambda: store.delete(PACK),
            lambda: store.compare_and_swap("HEAD", None, b"x"),
            lambda: store.compare_and_swap("refs/heads/-x", None, b"x"),
            lambda: store.compare_and_swap("refs/heads/a..b", None, b"x"),
        ):
            with pytest.raises(RemoteRefused):
                refused()
    assert plain.get("refs/heads/main") == b"1" * 32


@pytest.mark.parametrize(
    "path",
    [
        "/v1/value/refs/heads/../../config.toml",
        "/v1/value/refs/heads/%2e%2e/%2e%2e/config.toml",
        "/v1/value/refs%2Fheads%2Fmain",
        "/v1/value/%63onfig.toml",
        "/v1/value//etc/passwd",
        "/v1/value/refs/heads/main%00",
        "/v1/value/refs\\heads\\main",
        "/v1/value/refs/heads/%ff",
        "/v1/value/",
        "/v1/value/packs/" + "A" * 64 + ".pack",
        "/v1/value/packs/" + "a" * 64 + ".pack/",
        "/v1/keys?prefix=packs/../",
        "/v1/values?prefix=%2e%2e/",
        "/v1/value/refs/heads/" + "x" * 5000,
        "/v2/value/HEAD",
        "/",
    ],
)
def test_keys_that_try_to_get_out(plain: MemoryByteStore, path: str) -> None:
    with served(plain) as url:
        for method in ("GET", "PUT", "DELETE"):
            status, body = ask(url, method, path)
            assert 400 <= status < 500
            assert b"hidden" not in body


def test_tokens_and_what_they_allow(plain: MemoryByteStore) -> None:
    with served(plain, TOKENS) as url:
        for token in (None, "wrong-0123456789abcdef", READ + "x", READ[:-1]):
            with HttpByteStore(url, token=token) as store:
                for use in (
                    lambda store=store: store.get("HEAD"),
                    lambda store=store: store.values("refs/"),
                    lambda store=store: store.compare_and_swap("refs/heads/x", None, b"x"),
                ):
                    with pytest.raises(AuthenticationError) as caught:
                        use()
                    assert token is None or token not in str(caught.value)
        with HttpByteStore(url, token=READ) as store:
            assert store.get("HEAD") is not None
            writer = store.create()
            writer.write(
                bytes(5 << 20)
            )  # more than buffers hold: refused all the same, not cut off
            for write in (
                lambda: store.compare_and_swap("refs/heads/x", None, b"x"),
                lambda: store.publish([(writer, PACK)]),
            ):
                with pytest.raises(AuthenticationError, match="only read"):
                    write()
        with HttpByteStore(url, token=WRITE) as store:
            assert store.compare_and_swap("refs/heads/x", None, b"x")
        assert ask(url, "GET", "/v1/value/HEAD", Authorization=f"Basic {READ}")[0] == 401


def test_a_read_only_server_takes_nothing(plain: MemoryByteStore) -> None:
    with served(plain, TOKENS, read_only=True) as url, HttpByteStore(url, token=WRITE) as store:
        assert store.get("HEAD") is not None
        with pytest.raises(RemoteRefused, match="read-only"):
            store.compare_and_swap("refs/heads/x", None, b"x")
        writer = store.create()
        writer.write(b"x")
        with pytest.raises(RemoteRefused, match="read-only"):
            store.publish([(writer, PACK)])
        assert ask(url, "POST", "/v1/swap", b"x", Authorization=f"Bearer {WRITE}")[0] in (400, 403)


def test_web_pages_cannot_reach_a_server_without_tokens(plain: MemoryByteStore) -> None:
    with served(plain) as url:
        assert ask(url, "GET", "/v1/value/HEAD")[0] == 200
        assert ask(url, "GET", "/v1/value/HEAD", Origin="https://example.com")[0] == 403
        # A name that leads to 127.0.0.1 today, whatever it led to when the page was loaded.
        assert ask(url, "GET", "/v1/value/HEAD", Host="rebound.example.com")[0] == 403


def test_ranges(plain: MemoryByteStore) -> None:
    path = f"/v1/value/{PACK}"
    with served(plain) as url:
        assert ask(url, "GET", path, Range="bytes=1-3") == (206, b"ack")
        assert ask(url, "GET", path, Range="bytes=4-999") == (206, b"ed")
        assert ask(url, "GET", path, Range="bytes=6-9") == (416, b"")
        for range_ in ("bytes=3-1", "bytes=-2", "bytes=1-", "bytes=0-1,3-4", "lines=1-2", "x"):
            assert ask(url, "GET", path, Range=range_)[0] == 400
        assert ask(url, "GET", path) == (200, b"packed")


def test_requests_that_are_too_large(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as plain, served(plain, surface=EVERYTHING) as url:
        too_much = str(wire.LARGEST_PACK + 1)
        assert ask(url, "PUT", f"/v1/value/{PACK}", b"", **{"Content-Length": too_much})[0] == 413
        over = bytes(wire.LARGEST_VALUE + 1)
        assert ask(url, "PUT", "/v1/value/refs/heads/x", over)[0] == 413
        ids = msgspec.msgpack.encode([b"x" * 32] * (wire.MOST_IDS + 1))
        assert ask(url, "POST", "/v1/holds", ids)[0] in (400, 413)
        for body in (b"\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000, b"\x80", b""):
            assert ask(url, "POST", "/v1/swap", body)[0] == 400
        short = msgspec.msgpack.encode(wire.SwapRequest("refs/heads/x", None, b"x", b"short"))
        assert ask(url, "POST", "/v1/swap", short)[0] == 409
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_larger_than_any_body_is_not_read_to_its_end() -> None:
    read: list[str] = []

    async def receive() -> dict[str, object]:
        read.append("it is read")
        return {"type": "http.request", "body": b"x", "more_body": False}

    def request(declared: int) -> Request:
        headers = [(b"content-length", str(declared).encode())]
        return Request({"type": "http", "headers": headers}, receive)

    asyncio.run(drain(request(wire.LARGEST_PACK + 1), 600.0))
    assert not read
    asyncio.run(drain(request(wire.LARGEST_PACK), 600.0))
    assert read


def test_a_body_without_a_length_is_bounded_too(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as plain, served(plain) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(
                f"PUT /v1/value/{PACK} HTTP/1.1\r\nHost: localhost\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            sent = 0
            with contextlib.suppress(OSError):
                while sent < wire.LARGEST_PACK * 2:
                    client.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                    sent += 1 << 20
        assert sent < wire.LARGEST_PACK + (64 << 20)
        assert plain.get(PACK) is None


def test_clients_that_are_slow_are_dropped(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as plain, served(plain, idle_s=0.4) as url:
        parts = urlsplit(url)
        heads = {
            "nothing": b"",
            "half a request": b"GET /v1/value/HEAD HTTP/1.1\r\nHost: lo",
            "half a body": f"PUT /v1/value/{PACK} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 1000000\r\n\r\nabc".encode(),
        }
        for head in heads.values():
            with (
                socket.create_connection((parts.hostname, parts.port)) as client,
                contextlib.suppress(OSError),
            ):
                client.sendall(head)
                client.settimeout(0.1)
                while True:
                    try:
                        if not client.recv(65536):
                            break
                    except TimeoutError:
                        client.sendall(b"x")  # a byte now and then does not help
        assert plain.get(PACK) is None


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as plain, served(plain) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(
                f"PUT /v1/value/{PACK} HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Length: {10 << 20}\r\n\r\n".encode()
                + bytes(3 << 20)
            )
        while _files(tmp_path / "tmp"):
            time.sleep(0.01)
        assert plain.get(PACK) is None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


class Slow(MemoryByteStore):
    """A store whose swaps take a while, or fail."""

    def __init__(self, seconds: float, failure: Exception | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.failure = failure
        self.swaps = 0

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        self.swaps += 1
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return super().compare_and_swap(key, old, new)


def test_work_that_takes_long_keeps_the_line_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergepipe.transfer.serving.http._HEARTBEAT_S", 0.01)
    slow = Slow(0.1)
    with served(slow) as url, HttpByteStore(url) as store:
        assert store.compare_and_swap("refs/heads/x", None, b"1")
        assert not store.compare_and_swap("refs/heads/x", None, b"2")
        slow.failure = MergepipeError("block ab12 is wrong", "send it again")
        with pytest.raises(RemoteRefused, match="ab12") as caught:
            store.compare_and_swap("refs/heads/x", b"1", b"3")
        assert caught.value.hint == "send it again"
    assert slow.swaps == 3


def test_the_same_write_is_done_once(plain: MemoryByteStore) -> None:
    slow = Slow(0.3)
    with served(slow) as url, HttpByteStore(url) as store:
        write = b"w" * 16
        answers: list[bool] = []

        def swap() -> None:
            answers.append(store.swap_with_id("refs/heads/x", None, b"1", write))

        threads = [threading.Thread(target=swap) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 4
        assert slow.swaps == 1
        with pytest.raises(RemoteRefused, match="another write"):
            store.swap_with_id("refs/heads/x", b"1", b"2", write)


def test_errors_say_what_they_are_and_not_where() -> None:
    failing = Slow(0)
    with served(failing) as url, HttpByteStore(url) as store:
        for failure, expected in (
            (NoSpace("no space left while writing /srv/secret"), NoSpace),
            (UsageError("that makes no sense"), RemoteRefused),
        ):
            failing.failure = failure
            with pytest.raises(expected) as caught:
                store.compare_and_swap("refs/heads/x", None, b"1")
            assert "/srv" not in caught.value.message
        failing.failure = OSError("disk /dev/sdb1 is on fire")
        swap = msgspec.msgpack.encode(wire.SwapRequest("refs/heads/x", None, b"1", b"w" * 16))
        status, body = ask(url, "POST", "/v1/swap", swap)
        assert status == 500
        assert b"sdb1" not in body


def test_where_a_server_may_listen() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(UsageError, match="token"):
            bind(host, 0, guarded=False)
    bind("0.0.0.0", 0, guarded=True).close()
    with pytest.raises(UsageError, match="no address"):
        bind("nowhere.invalid", 0, guarded=True)
    with bind("127.0.0.1", 0, guarded=False) as taken, pytest.raises(UsageError, match="in use"):
        bind("127.0.0.1", taken.getsockname()[1], guarded=False)


def test_tokens_that_cannot_be_read_are_not_repeated() -> None:
    for lines in (["write"], ["admin " + READ], ["write Zyx123"], ["write " + READ + " x"], []):
        with pytest.raises(ConfigError) as caught:
            Tokens.parse(lines, "the file")
        shown = caught.value.message + caught.value.hint
        assert "the file" in shown
        assert READ not in shown
        assert "Zyx123" not in shown
    assert READ not in repr(TOKENS)
