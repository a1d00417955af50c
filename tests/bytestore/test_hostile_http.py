"""What an http client is told by servers that lie, stall or never stop, and what it makes of it."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
import pytest

from mergepipe.bytestore import wire
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.retries import Retries
from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    NoSpace,
    RemoteRefused,
    RemoteUnreachable,
    UsageError,
)
from tests.bytestore.bad_lines import Script, answering, flood, trickle, until_it_hangs_up
from tests.bytestore.counted import many_refs

TOKEN = "a-secret-that-nobody-prints"
OURS = b"Mergepipe-Protocol: 1\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + OURS
PARTIAL = b"HTTP/1.1 206 Partial\r\n" + OURS
PACK = "packs/" + "a" * 64 + ".pack"
PATIENT_S = 600.0
"""A guard: nothing waits for it, however slow the machine."""
STALLED_S = 0.3


@contextmanager
def told(script: Script, idle_s: float = PATIENT_S) -> Iterator[HttpByteStore]:
    quickly = Retries(again=1, first_s=0.01, longest_s=0.01)
    with (
        answering(script) as url,
        HttpByteStore(url, token=TOKEN, idle_s=idle_s, retries=quickly) as store,
    ):
        yield store


def replying(data: bytes) -> Script:
    def script(client: socket.socket, head: bytes) -> None:
        client.sendall(data)

    return script


def with_body(body: bytes, status: bytes = b"200 OK") -> Script:
    head = b"HTTP/1.1 " + status + b"\r\n" + OURS
    return replying(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def then(data: bytes, more: Callable[[socket.socket], None]) -> Script:
    def script(client: socket.socket, head: bytes) -> None:
        client.sendall(data)
        more(client)

    return script


def refused(
    use: Callable[[], object], kind: type[MergepipeError], match: str | None = None
) -> None:
    """`use` ends, in little memory, with this error, which keeps the secret."""
    tracemalloc.start()
    with pytest.raises(kind, match=match) as caught:
        use()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    shown = caught.value.message + caught.value.hint
    assert TOKEN not in shown
    assert shown.isprintable()


def read(store: HttpByteStore, length: int = 100) -> int:
    return store.read_into(PACK, 0, memoryview(bytearray(length)))


ENDLESS = {
    "headers": replying(b""),
    "continue": then(b"", lambda client: flood(client, b"HTTP/1.1 100 Continue\r\n\r\n")),
    "header lines": then(OK, lambda client: flood(client, b"X-More: of the same\r\n", 4 << 20)),
    "one header": then(OK + b"X: ", lambda client: flood(client, b"x")),
    "body": then(OK + b"\r\n", lambda client: flood(client, b"\x81")),
    "chunks": then(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", lambda client: flood(client, b"1\r\nx\r\n")
    ),
    "trailers": then(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", lambda client: flood(client, b"X: y\r\n")
    ),
    "declared": replying(OK + b"Content-Length: 999999999999\r\n\r\n"),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends(script: Script) -> None:
    with told(script) as store:
        refused(lambda: store.values("refs/"), MergepipeError)
        refused(lambda: store.get("refs/heads/main"), MergepipeError)
        refused(lambda: store.compare_and_swap("refs/heads/main", None, b"x"), MergepipeError)
        refused(lambda: read(store), MergepipeError)


def slow_body_after(head: bytes) -> Script:
    def script(client: socket.socket, request: bytes) -> None:
        client.sendall(head)
        trickle(client, b"x" * 100, 0.05)

    return script


@pytest.mark.parametrize(
    "script",
    [
        lambda client, head: until_it_hangs_up(client),
        lambda client, head: trickle(client, OK + b"X: " + b"x" * 1000, 0.05),
        slow_body_after(PARTIAL + b"Content-Range: bytes 0-99/100\r\nContent-Length: 100\r\n\r\n"),
        slow_body_after(OK + b"Content-Length: 100\r\n\r\n"),
    ],
    ids=["silence", "slow headers", "slow range", "slow body"],
)
def test_a_server_that_stalls_is_given_up(script: Script) -> None:
    with told(script, STALLED_S) as store:
        refused(lambda: read(store), MergepipeError)
        refused(lambda: store.get("refs/heads/main"), RemoteUnreachable)


def test_heartbeats_do_not_go_on_for_ever() -> None:
    with told(then(OK + b"\r\n", lambda client: flood(client, b"\xc0"))) as store:
        refused(lambda: store.compare_and_swap("refs/heads/main", None, b"x"), RemoteRefused)


def test_a_server_may_say_that_it_is_still_at_work() -> None:
    reply = msgspec.msgpack.encode(wire.SwapReply(True))

    def script(client: socket.socket, head: bytes) -> None:
        client.sendall(OK + b"Content-Length: %d\r\n\r\n" % (8 + len(reply)))
        client.sendall(b"\xc0" * 8)
        client.sendall(reply)

    with told(script) as store:
        assert store.compare_and_swap("refs/heads/main", None, b"x")


RANGES = {
    "another start": (b"bytes 5-104/200", 100),
    "longer": (b"bytes 0-199/200", 200),
    "longer than it says": (b"bytes 0-99/200", 101),
    "shorter": (b"bytes 0-49/200", 50),
    "beyond the end": (b"bytes 0-99/50", 100),
    "backwards": (b"bytes 9-0/100", 0),
    "nonsense": (b"bytes zero to end", 100),
    "huge numbers": (b"bytes 0-" + b"9" * 5000 + b"/1", 100),
}


@pytest.mark.parametrize(("said", "length"), RANGES.values(), ids=RANGES)
def test_ranges_that_are_not_those_asked_for(said: bytes, length: int) -> None:
    head = PARTIAL + b"Content-Range: " + said + b"\r\nContent-Length: %d\r\n\r\n" % length
    with told(replying(head + b"x" * length)) as store:
        refused(lambda: read(store), RemoteRefused)


def test_the_whole_value_instead_of_a_range() -> None:
    with told(with_body(b"x" * 100)) as store:
        refused(lambda: read(store), RemoteRefused)


def test_a_reply_that_is_cut_off() -> None:
    asked: list[bytes] = []

    def script(client: socket.socket, head: bytes) -> None:
        asked.append(next(line for line in head.split(b"\r\n") if line.startswith(b"Range")))
        start = int(asked[-1].split(b"=")[1].split(b"-")[0])
        said = b"Content-Range: bytes %d-99/100\r\nContent-Length: %d\r\n\r\n"
        client.sendall(PARTIAL + said % (start, 100 - start) + b"x" * min(60, 100 - start))

    with told(script) as store:
        assert read(store) == 100
    assert asked == [b"Range: bytes=0-99", b"Range: bytes=60-99"]  # what came is not sent again
    with told(replying(OK + b"Content-Length: 100\r\n\r\n" + b"x" * 60)) as store:
        refused(lambda: store.get("HEAD"), RemoteUnreachable)


GARBAGE = {
    "garbage": b"\xff\xfe\xfd",
    "a bomb": b"\xdd\xff\xff\xff\xff",
    "a bomb of a map": b"\xdf\xff\xff\xff\xff",
    "nested": b"\x91" * 100_000,
    "no text": b"\x91\xa4\xff\xff\xff\xff",
    "nothing": b"",
}
KEYS = {
    "escaping": ["refs/../../etc/passwd"],
    "absolute": ["/etc/passwd"],
    "elsewhere": ["config.toml"],
    "empty part": ["refs//a"],
    "backslash": ["refs/heads\\..\\x"],
    "unsorted": ["refs/b", "refs/a"],
    "control characters": ["refs/heads/\x1b[31m"],
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_replies_that_cannot_be_read(body: bytes) -> None:
    with told(with_body(body)) as store:
        refused(lambda: list(store.list("refs/")), RemoteRefused)
        refused(lambda: store.values("refs/"), RemoteRefused)
        refused(lambda: store.compare_and_swap("refs/heads/main", None, b"x"), RemoteRefused)


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_that_cannot_be(keys: list[str]) -> None:
    with told(with_body(msgspec.msgpack.encode(keys))) as store:
        refused(lambda: list(store.list("refs/")), RemoteRefused)
    with told(with_body(msgspec.msgpack.encode(dict.fromkeys(keys, b"x")))) as store:
        refused(lambda: store.values("refs/"), RemoteRefused)


def test_a_million_refs(monkeypatch: pytest.MonkeyPatch) -> None:
    with told(with_body(many_refs(1_000_000, b"x" * 32))) as store:
        refused(lambda: store.values("refs/"), RemoteRefused, "fit")
    with told(with_body(many_refs(100_001, b"x"))) as store:
        monkeypatch.setattr(wire, "MOST_VALUES", 100_000)
        refused(lambda: store.values("refs/"), RemoteRefused, "100,000")
        monkeypatch.setattr(wire, "MOST_VALUES", 200_000)
        monkeypatch.setattr(wire, "MOST_LISTED_BYTES", 1 << 20)
        refused(lambda: store.values("refs/"), RemoteRefused, "1,048,576")


def test_pages_that_lead_nowhere() -> None:
    """A page that says that there is more, and has nothing, or has the same again."""
    for body in ([None], ["refs/heads/a", None]):
        with told(with_body(msgspec.msgpack.encode(body))) as store:
            refused(lambda: list(store.list("refs/")), RemoteRefused)
    for values in ({"": b""}, {"refs/heads/a": b"x", "": b""}):
        with told(with_body(msgspec.msgpack.encode(values))) as store:
            refused(lambda: store.values("refs/"), RemoteRefused)


def test_answers_about_ids_that_do_not_fit() -> None:
    for body in (b"", b"\1", b"\1\0\1", b"\2\0"):
        with told(with_body(body)) as store:
            refused(partial(store.holds, [b"a" * 32, b"b" * 32]), RemoteRefused)


def test_a_redirect_is_not_followed() -> None:
    heads: list[bytes] = []

    def elsewhere(client: socket.socket, head: bytes) -> None:
        heads.append(head)

    with answering(elsewhere) as other:
        location = f"Location: {other}/v1/value/HEAD\r\nContent-Length: 0\r\n\r\n".encode()
        with told(replying(b"HTTP/1.1 302 Found\r\n" + location)) as store:
            refused(lambda: store.get("HEAD"), RemoteRefused, "elsewhere")
    assert heads == []


def test_a_server_that_is_none_of_ours() -> None:
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry"
    with told(replying(page)) as store:
        # Not to be mistaken for a repository without refs.
        refused(lambda: store.get("HEAD"), RemoteRefused, "no mergepipe repository")
        refused(lambda: store.size(PACK), RemoteRefused, "no mergepipe repository")
    with told(replying(b"220 smtp.example.com ESMTP\r\n")) as store:
        refused(lambda: store.get("HEAD"), RemoteUnreachable)


def test_a_body_in_an_encoding_that_nobody_asked_for() -> None:
    body = b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    with told(replying(OK + body)) as store:
        refused(lambda: store.get("HEAD"), RemoteRefused, "encoding")


def test_errors_come_as_what_they_are_and_fit_for_a_terminal() -> None:
    def error(kind: str) -> bytes:
        return msgspec.msgpack.encode(wire.ErrorReply(kind, "\x1b[2Jgone\n" * 500, "\x07"))

    for kind, status, expected in (
        ("no_space", b"507 Full", NoSpace),
        ("auth", b"401 Who", AuthenticationError),
        ("worktree_dirty", b"409 No", RemoteRefused),
        ("made up", b"400 No", RemoteRefused),
    ):
        with told(with_body(error(kind), status)) as store:
            refused(partial(store.get, "HEAD"), expected, "gone")
    with told(with_body(b"\xff", b"409 No")) as store:
        refused(lambda: store.get("HEAD"), RemoteRefused)


def test_trouble_that_passes_is_waited_for() -> None:
    times: list[bytes] = []

    def script(client: socket.socket, head: bytes) -> None:
        times.append(head)
        if len(times) == 1:
            client.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        else:
            client.sendall(OK + b"Content-Length: 2\r\n\r\nhi")

    with told(script) as store:
        assert store.get("HEAD") == b"hi"
    assert len(times) == 2


def test_nobody_there_and_no_such_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quickly = Retries(again=1, first_s=0.01, longest_s=0.01)
    with HttpByteStore(f"http://127.0.0.1:{port}", retries=quickly) as store:
        refused(lambda: store.get("HEAD"), RemoteUnreachable)
    with HttpByteStore("http://nowhere.invalid", retries=quickly) as store:
        refused(lambda: store.get("HEAD"), RemoteUnreachable)


def test_tokens_and_urls_that_are_not_used() -> None:
    for token in ("two words", "line\r\nX-Evil: 1", "", "ü"):
        with pytest.raises(UsageError) as caught:
            HttpByteStore("http://localhost", token=token)
        assert not token or token not in str(caught.value)
    for url in ("http://user:pass@host/", "ftp://host", "http://", "http://h/?q", "http://h:x/"):
        with pytest.raises(UsageError):
            HttpByteStore(url)
