"""What a client on a line is told by servers that lie, stall or never stop, and ssh that fails."""

import os
import select
import struct
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from mergepipe.bytestore import frames, wire
from mergepipe.bytestore.frames import Kind
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.ssh import ssh_command, ssh_store
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    NoSpace,
    RemoteRefused,
    RemoteUnreachable,
    UsageError,
)
from tests.bytestore import sshd
from tests.bytestore.transports import PipePeer

PACK = f"packs/{'a' * 64}.pack"
QUICKLY = Retries(again=1, first_s=0.01, longest_s=0.01)
Script = Callable[[BinaryIO, int], None]
"""What a server does after its hello about the request of this number."""
PATIENT_S = 600.0
"""A guard: nothing waits for it, however slow the machine."""
STALLED_S = 0.3


def frame(number: int, kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IIB", len(payload), number, kind) + payload


def packed(document: object) -> bytes:
    return msgspec.msgpack.encode(document)


HELLO = frame(0, Kind.HELLO, frames.HELLO)


@contextmanager
def told(
    script: Script, hello: bytes = HELLO, idle_s: float = PATIENT_S
) -> Iterator[StdioByteStore]:
    def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
        with suppress(OSError):
            stdout.write(hello)
            while head := _read(stdin, 9):
                length, number, kind = struct.unpack("<IIB", head)
                _read(stdin, length)
                if kind == Kind.REQUEST:
                    script(stdout, number)

    with StdioByteStore(
        lambda: PipePeer(serve), "x", idle_s=idle_s, patience_s=idle_s, retries=QUICKLY
    ) as store:
        yield store


def _read(source: BinaryIO, count: int) -> bytes:
    found = b""
    while len(found) < count and (piece := source.read(count - len(found))):
        found += piece
    return found


def refused(use: Callable[[], object], kind: type[MergepipeError], match: str | None = None) -> str:
    """`use` ends, in little memory, with this error; what the user is shown."""
    tracemalloc.start()
    with pytest.raises(kind, match=match) as caught:
        use()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    shown = caught.value.message + caught.value.hint
    assert shown.replace("\n", "").isprintable()
    return shown


def listed(store: StdioByteStore) -> list[str]:
    return list(store.list("refs/"))


def read(store: StdioByteStore) -> int:
    return store.read_into(PACK, 0, memoryview(bytearray(100)))


def flood(data: bytes) -> Script:
    def script(stdout: BinaryIO, number: int) -> None:
        block = data.replace(b"NNNN", struct.pack("<I", number)) * max(1, (1 << 18) // len(data))
        while True:
            stdout.write(block)

    return script


ENDLESS = {
    "data": flood(frame(0x4E4E4E4E, Kind.DATA, b"x" * 1000)),
    "zeros": flood(b"\0"),
    "text": flood(b"Welcome to our machine!\r\n"),
    "huge frames": flood(struct.pack("<IIB", 0xFFFFFFFF, 1, 2)),
    "replies nobody asked for": flood(frame(77, Kind.REPLY, b"\xc0")),
    "hellos": flood(HELLO),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends(script: Script) -> None:
    with told(script) as store:
        refused(lambda: store.values("refs/"), RemoteRefused)
        refused(lambda: read(store), RemoteRefused)
        refused(lambda: store.compare_and_swap("refs/heads/main", None, b"x"), RemoteRefused)


def until_nobody_reads(stdout: BinaryIO) -> None:
    """Say nothing until the client has had enough."""
    watched = select.poll()
    watched.register(stdout, 0)
    watched.poll()  # for the error that the other end is closed


def test_a_server_that_stalls_is_given_up() -> None:
    def trickling(stdout: BinaryIO, number: int) -> None:
        for _ in range(100):
            stdout.write(frame(number, Kind.DATA, b"x"))
            time.sleep(0.05)

    def half_a_frame(stdout: BinaryIO, number: int) -> None:
        stdout.write(frame(number, Kind.DATA, b"x" * 50)[:20])
        until_nobody_reads(stdout)

    def silent(stdout: BinaryIO, number: int) -> None:
        until_nobody_reads(stdout)

    for script in (silent, trickling, half_a_frame):
        with told(script, idle_s=STALLED_S) as store:
            refused(partial(read, store), RemoteUnreachable)
    with told(trickling, hello=b"", idle_s=STALLED_S) as store:
        refused(lambda: read(store), RemoteUnreachable)


def test_a_server_that_takes_nothing_is_given_up() -> None:
    def stop_reading(stdout: BinaryIO, number: int) -> None:
        until_nobody_reads(stdout)

    with told(stop_reading, idle_s=STALLED_S) as store:
        writer = store.create()
        writer.write(bytes(8 << 20))
        refused(lambda: store.publish([(writer, PACK)]), RemoteUnreachable)


HELLOS = {
    "a banner": b"Last login: yesterday\n",
    "another version": frame(0, Kind.HELLO, b"mergepipe 2"),
    "an error": frame(0, Kind.ERROR, packed(wire.ErrorReply("locked", "somebody\x1b[2J has it"))),
    "garbage": frame(0, Kind.ERROR, b"\xff"),
}


@pytest.mark.parametrize("hello", HELLOS.values(), ids=HELLOS)
def test_greetings_that_are_none(hello: bytes) -> None:
    with told(lambda stdout, number: None, hello) as store:
        refused(lambda: store.get("HEAD"), MergepipeError)


def replies(*parts: tuple[int, bytes]) -> Script:
    def script(stdout: BinaryIO, number: int) -> None:
        for kind, payload in parts:
            stdout.write(frame(number, kind, payload))

    return script


LIES = {
    "less than it says": replies((2, b"x" * 10), (4, packed(100))),
    "more than it says": replies((2, b"x" * 10), (4, packed(5))),
    "negative": replies((4, packed(-5))),
    "text": replies((4, packed("five"))),
    "garbage": replies((4, b"\xff")),
    "bomb": replies((4, b"\xdd\xff\xff\xff\xff")),
    "a request": replies((1, packed(["get", "HEAD"]))),
    "garbage for an error": replies((5, b"\xff")),
}


@pytest.mark.parametrize("script", LIES.values(), ids=LIES)
def test_lies(script: Script) -> None:
    with told(script) as store:
        refused(lambda: read(store), RemoteRefused)
        refused(lambda: store.get(PACK), RemoteRefused)
        refused(lambda: store.values("refs/"), RemoteRefused)
        refused(lambda: store.holds([b"a" * 32]), RemoteRefused)
        refused(lambda: store.compare_and_swap("refs/heads/x", None, b"x"), RemoteRefused)


def test_listings_that_cannot_be() -> None:
    for keys in (["refs/../x"], ["/etc/passwd"], ["refs/b", "refs/a"], ["config.toml"]):
        body = packed(keys)
        with told(replies((2, body), (4, packed(len(body))))) as store:
            refused(partial(listed, store), RemoteRefused)
        body = packed(dict.fromkeys(keys, b"x"))
        with told(replies((2, body), (4, packed(len(body))))) as store:
            refused(partial(store.values, "refs/"), RemoteRefused)


def test_errors_come_as_what_they_are() -> None:
    for kind, expected in (
        ("no_space", NoSpace),
        ("x", RemoteRefused),
        ("not_found", RemoteRefused),
    ):
        error = packed(wire.ErrorReply(kind, "\x1b[2Jgone", "\x07"))
        with told(replies((5, error))) as store:
            refused(partial(store.get, "HEAD"), expected, "gone")
    gone = packed(wire.ErrorReply("not_found", "gone"))
    with told(replies((5, gone))) as store, pytest.raises(FileNotFoundError):
        read(store)


def test_one_stalled_request_does_not_stop_the_others() -> None:
    """Many threads, one line, replies in any order."""
    waiting: list[int] = []

    def script(stdout: BinaryIO, number: int) -> None:
        waiting.append(number)
        if len(waiting) == 8:
            for each in reversed(waiting):
                stdout.write(frame(each, Kind.REPLY, packed(each)))

    with told(script) as store:
        sizes: list[int | None] = []
        threads = [
            threading.Thread(target=lambda: sizes.append(store.size(PACK))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(each or 0 for each in sizes) == sorted(waiting)


def test_what_ssh_could_take_for_an_option_is_refused() -> None:
    for arguments in (
        {"host": "-oProxyCommand=evil", "path": "/x"},
        {"host": "host", "path": "-x"},
        {"host": "host", "path": "/x", "user": "-l"},
        {"host": "host", "path": "/x", "user": "a@b"},
        {"host": "", "path": "/x"},
        {"host": "host", "path": ""},
        {"host": "host\n", "path": "/x"},
        {"host": "host", "path": "/x", "command": "ssh 'unfinished"},
        {"host": "host", "path": "/x", "command": ""},
    ):
        with pytest.raises(UsageError):
            ssh_command(**arguments)  # type: ignore[arg-type]  # values of any words
    words = ssh_command(
        "host", "/it's $(here)", user="me", port=22, command="ssh -i 'a key'", program="/opt/m p/mp"
    )
    assert words[:3] == ["ssh", "-i", "a key"]
    assert words[-3:-1] == ["--", "me@host"]
    # split again by the shell there, it is what was meant
    spelled = os.popen(f"printf '%s|' {words[-1]}").read()
    assert spelled.split("|")[:-1] == ["/opt/m", "p/mp", "serve", "--stdio", "--", "/it's $(here)"]


@pytest.mark.skipif(sshd.SSHD is None, reason="no sshd here")
def test_an_ssh_that_fails_says_why(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "sshd") as server:

        def store(**changed: object) -> StdioByteStore:
            options: dict[str, object] = {
                "host": "127.0.0.1",
                "path": str(tmp_path),
                "port": server.port,
                "command": server.command,
                "retries": QUICKLY,
                **changed,
            }
            return ssh_store(**options)  # type: ignore[arg-type]

        with store(program="no-such-mp") as opened:
            refused(lambda: opened.get("HEAD"), RemoteRefused, "cannot run no-such-mp")
        with store(program="echo hello; exit 10; #") as opened:
            refused(lambda: opened.get("HEAD"), RemoteRefused)
        with store(
            program=f"{sys.executable} -c 'import sys;sys.exit(\"no room \\033[1m\")'"
        ) as opened:
            assert "no room" in refused(lambda: opened.get("HEAD"), RemoteRefused, "exit code 1")
        with store(command=f"{server.command} -o PubkeyAuthentication=no") as opened:
            shown = refused(lambda: opened.get("HEAD"), AuthenticationError)
            assert "Permission denied" in shown
        (tmp_path / "sshd" / "known").write_text("")
        with store() as opened:
            refused(lambda: opened.get("HEAD"), AuthenticationError)
        with store(command="no-such-ssh") as opened:
            refused(lambda: opened.get("HEAD"), UsageError, "no-such-ssh")
    with store() as opened:
        shown = refused(lambda: opened.get("HEAD"), RemoteUnreachable)
        assert "refused" in shown
