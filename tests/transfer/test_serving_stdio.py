"""What the stdio server does with clients that misbehave, and with those that are gone."""

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from mergepipe.bytestore import frames, wire
from mergepipe.bytestore.frames import Kind
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import MergepipeError, RemoteRefused
from mergepipe.transfer.serving.stdio import serve_stdio
from mergepipe.transfer.serving.surface import EVERYTHING
from tests.bytestore import plain_server
from tests.bytestore.transports import PipePeer
from tests.patience import LIMIT_S, patiences

PACK = f"packs/{'a' * 64}.pack"
HELLO = struct.pack("<IIB", len(frames.HELLO), 0, Kind.HELLO) + frames.HELLO


class Client:
    """Frames by hand, to a server on a thread."""

    def __init__(self, store: ByteStore, idle_s: float = LIMIT_S) -> None:
        theirs, self.writing = os.pipe()
        self.reading, back = os.pipe()
        self.error: MergepipeError | None = None

        def run() -> None:
            with os.fdopen(theirs, "rb", 0) as stdin, os.fdopen(back, "wb", 0) as stdout:
                try:
                    serve_stdio(store, stdin, stdout, idle_s=idle_s)
                except MergepipeError as error:
                    self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()
        self.said = os.fdopen(self.reading, "rb")

    def send(self, number: int, kind: int, payload: bytes = b"") -> None:
        self.raw(struct.pack("<IIB", len(payload), number, kind) + payload)

    def raw(self, data: bytes) -> None:
        pending = memoryview(data)
        while pending:
            pending = pending[os.write(self.writing, pending) :]

    def ask(self, number: int, *request: object) -> None:
        self.send(number, Kind.REQUEST, msgspec.msgpack.encode(request))

    def frame(self) -> tuple[int, int, bytes]:
        """The next frame: number, kind, payload. Raises EOFError."""
        head = self.said.read(9)
        if not head:
            raise EOFError
        length, number, kind = struct.unpack("<IIB", head)
        return number, kind, self.said.read(length)

    def end(self) -> None:
        os.close(self.writing)
        self.thread.join()
        self.said.close()


@contextmanager
def client(store: ByteStore, idle_s: float = LIMIT_S) -> Iterator[Client]:
    made = Client(store, idle_s)
    assert made.frame() == (0, Kind.HELLO, frames.HELLO)
    made.raw(HELLO)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def plain() -> MemoryByteStore:
    store = MemoryByteStore()
    store.put("HEAD", b"ref: refs/heads/main")
    store.put(PACK, bytes(1 << 20))
    store.put("config.toml", b"hidden")
    return store


def error_of(frame: tuple[int, int, bytes]) -> wire.ErrorReply:
    assert frame[1] == Kind.ERROR
    return msgspec.msgpack.decode(frame[2], type=wire.ErrorReply)


def test_requests_by_hand(plain: MemoryByteStore) -> None:
    with client(plain) as line:
        line.ask(7, "get", "HEAD")
        assert line.frame() == (7, Kind.DATA, b"ref: refs/heads/main")
        assert line.frame() == (7, Kind.REPLY, msgspec.msgpack.encode(20))
        line.ask(8, "read", PACK, 5, 300 << 10)
        assert [len(line.frame()[2]) for _ in range(2)] == [256 << 10, 44 << 10]
        assert line.frame() == (8, Kind.REPLY, msgspec.msgpack.encode(300 << 10))
        line.ask(9, "read", f"packs/{'b' * 64}.pack", 0, 1)
        assert error_of(line.frame()).kind == "not_found"
        line.ask(10, "get", "config.toml")
        assert error_of(line.frame()).kind == "remote_refused"


def test_absurd_sizes_are_refused_before_a_body_is_read(plain: MemoryByteStore) -> None:
    for request in (["holds", wire.MOST_IDS + 1], ["purge", wire.LARGEST_VALUE + 1]):
        with client(plain) as line:
            line.send(1, Kind.REQUEST, msgspec.msgpack.encode(request))
            line.send(1, Kind.END)
            assert "at most" in error_of(line.frame()).message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(["no such method"]),
        msgspec.msgpack.encode(["get"]),
        msgspec.msgpack.encode(["get", 5]),
        msgspec.msgpack.encode(["get", "HEAD", "more"]),
        msgspec.msgpack.encode(["read", PACK, -1, 5]),
        msgspec.msgpack.encode(["read", PACK, 0, -5]),
        msgspec.msgpack.encode(["holds", 1 << 40]),
        msgspec.msgpack.encode(["publish", PACK, 1 << 40]),
        msgspec.msgpack.encode(["publish", PACK, -1]),
        msgspec.msgpack.encode(["publish", "config.toml", 5]),
        msgspec.msgpack.encode(["put", "HEAD", 5]),
        msgspec.msgpack.encode(["delete", PACK]),
        msgspec.msgpack.encode(["swap", "HEAD", None, b"x", b"w" * 16, False]),
        msgspec.msgpack.encode(["swap", "refs/heads/x", None, b"x", b"w", False]),
        msgspec.msgpack.encode(["keys", ""]),
        msgspec.msgpack.encode(["get", "refs/heads/../../config.toml"]),
    ],
)
def test_requests_that_are_refused(plain: MemoryByteStore, payload: bytes) -> None:
    before = dict(plain._values)
    with client(plain) as line:
        line.send(1, Kind.REQUEST, payload)
        line.send(1, Kind.END)
        assert error_of(line.frame()).message
        line.ask(2, "get", "HEAD")  # the line goes on
        assert line.frame()[0] == 2
    assert plain._values == before


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<IIB", 0xFFFFFFFF, 1, 2),
        struct.pack("<IIB", 5, 1, 99) + b"hello",
        struct.pack("<IIB", 0, 1, Kind.REPLY),
        HELLO,
    ],
)
def test_what_is_no_frame_ends_the_line(plain: MemoryByteStore, data: bytes) -> None:
    with client(plain) as line:
        line.raw(data)
        assert error_of(line.frame()).kind == "remote_refused"
        with pytest.raises(EOFError):
            line.frame()
        line.thread.join()
        assert isinstance(line.error, RemoteRefused)


def test_too_many_requests_at_once(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store, client(store) as line:
        for number in range(frames.AT_ONCE):
            line.ask(number, "publish", f"packs/{number:064x}.pack", 10)
        line.ask(99, "get", "HEAD")
        assert error_of(line.frame()).kind == "remote_refused"


def test_uploads_that_do_not_fit_what_was_announced(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store:
        with client(store) as line:
            for number, data in enumerate((b"", b"x" * 9, b"x" * 11)):
                line.ask(number, "publish", PACK, 10)
                if data:
                    line.send(number, Kind.DATA, data)
                line.send(number, Kind.END)
                assert "announced" in error_of(line.frame()).message
            line.ask(50, "publish", PACK, 10)
            line.send(50, Kind.DATA, b"x" * 5)
            # and the client is gone
        assert store.get(PACK) is None
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_client_that_sends_no_more_is_not_waited_for(tmp_path: Path) -> None:
    answered = False
    for idle_s in patiences(0.3):
        with (
            suppress(EOFError, BrokenPipeError),  # it was given up before it had asked
            LocalByteStore(tmp_path) as store,
            client(store, idle_s) as line,
        ):
            line.ask(1, "publish", PACK, 10)
            number, kind, payload = line.frame()
            assert (number, kind) == (1, Kind.ERROR)
            assert payload
            answered = True
        if answered:
            break
    assert answered


def test_a_client_that_takes_nothing_is_dropped(plain: MemoryByteStore) -> None:
    with client(plain, idle_s=0.3) as line:
        for number in range(10):
            line.ask(number, "get", PACK)
        line.thread.join()


def test_work_that_takes_long_keeps_the_line_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergepipe.transfer.serving.stdio._HEARTBEAT_S", 0.01)
    enough = threading.Event()

    class Slow(MemoryByteStore):
        def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
            enough.wait()
            return super().compare_and_swap(key, old, new)

    with client(Slow()) as line:
        line.ask(1, "swap", "refs/heads/x", None, b"1", b"w" * 16, False)
        for _ in range(3):
            assert line.frame() == (1, Kind.DATA, b"")
        enough.set()
        while (said := line.frame())[1] == Kind.DATA:
            assert said[2] == b""
        assert said[:2] == (1, Kind.REPLY)
        line.ask(2, "get", "refs/heads/x")
        assert line.frame() == (2, Kind.DATA, b"1")
        assert line.frame()[1] == Kind.REPLY


def test_a_read_only_server_takes_nothing(plain: MemoryByteStore) -> None:
    def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
        serve_stdio(plain, stdin, stdout, surface=EVERYTHING, read_only=True)

    with StdioByteStore(lambda: PipePeer(serve), "x") as store:
        assert store.get("HEAD") is not None
        writer = store.create()
        writer.write(bytes(3 << 20))
        for write in (
            lambda: store.put("x", b"x"),
            lambda: store.delete("HEAD"),
            lambda: store.compare_and_swap("HEAD", None, b"x"),
            lambda: store.publish([(writer, PACK)]),
        ):
            with pytest.raises(RemoteRefused, match="read-only"):
                write()


def test_the_server_ends_with_its_stdin(tmp_path: Path) -> None:
    """A process of its own, killed, and left alone."""

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, plain_server.__file__, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    with start() as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.read(len(HELLO)) == HELLO
        server.stdin.close()
        assert server.wait() == 0
    with start() as server:
        assert server.stdin is not None
        server.stdin.write(HELLO + b"\0")
        server.stdin.close()
        assert server.wait() == 0
