"""The lies of test_hostile.py over real http, and those that only a server can tell."""

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.retries import Retries
from mergepipe.errors import Corruption, MergepipeError, RemoteRefused, RemoteUnreachable
from mergepipe.packs.reader import pack_key
from mergepipe.transfer.fetch import FetchOptions, fetch
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Wanted
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from tests.bytestore.bad_lines import answering, flood, trickle
from tests.bytestore.counted import many_packs, many_refs
from tests.bytestore.transports import serving
from tests.patience import patiences

from .forged_models import CASES, RAW
from .forging import BLOCK, Forge, bounded, line, noise, remote_of, send, visible
from .remotes import Family

IDLE_S = 600.0
"""A guard: no answer that comes takes as long, however slow the machine."""
STALLED_S = 0.25
"""How long a client first waits for a server that says nothing; longer, if honest answers did not
come in that time."""
QUICKLY = Retries(again=1, first_s=0.01, longest_s=0.01)
Reply = Callable[[socket.socket], None]
# What is asked for (`values`, `keys`, `size`, `read`, `get`, `holds`, `swap`), and what comes.
Lies = dict[str, Reply]


def client(url: str, idle_s: float = IDLE_S) -> HttpByteStore:
    return HttpByteStore(url, idle_s=idle_s, retries=QUICKLY)


def test_forged_packs_are_pushed(repo: Repository) -> None:
    """Each is refused by name, and the server goes on."""
    with (
        ReceivingStore(repo) as receiving,
        serving(Service(Offer(receiving))) as url,
        client(url) as store,
    ):
        honest = Forge()
        good = honest.model(noise(2 * BLOCK))
        for pack, data in honest.packs().items():
            send(store, pack, data)
        assert store.compare_and_swap("refs/heads/main", None, line(good))
        before = visible(repo)
        for name, make in sorted(CASES.items()):
            forge = Forge()
            commit, guilty = make(forge)
            with pytest.raises((Corruption, RemoteRefused)) as caught:
                for pack, data in forge.packs().items():
                    send(store, pack, data)
                store.compare_and_swap("refs/heads/wrong", None, line(commit))
            assert guilty.hex()[:12] in caught.value.message, name
            assert visible(repo) == before, name
    assert repo.fsck(read_data=True).ok


def test_forged_packs_are_offered(repo: Repository) -> None:
    """One server offers all of them, each on a branch; those who fetch an honest one get it."""
    bucket = MemoryByteStore()
    guilty = {}
    for name, make in sorted(CASES.items()):
        forge = Forge()
        commit, guilty[name] = make(forge)
        for pack, data in forge.packs().items():
            bucket.put(pack_key(pack), data)
        bucket.put(f"refs/heads/{name}", line(commit) or b"")
    honest = Forge()
    good = honest.model(noise(2 * BLOCK))
    for pack, data in honest.packs().items():
        bucket.put(pack_key(pack), data)
    bucket.put("refs/heads/good", line(good) or b"")
    with serving(Service(Offer(bucket))) as url:
        for name, identity in guilty.items():
            with client(url) as store, pytest.raises((Corruption, RemoteRefused)) as caught:
                fetch(repo, "origin", store, FetchOptions((name,)))
            assert identity.hex()[:12] in caught.value.message, name
            assert visible(repo) == {}, name
        with client(url) as store:
            fetch(repo, "origin", store, FetchOptions(("good",)))
    assert repo.refs.read("refs/remotes/origin/good") == good
    assert repo.fsck(read_data=True).ok


OURS = b"HTTP/1.1 %s\r\nMergepipe-Protocol: 1\r\n"
OK = b"200 OK"
PARTIAL = b"206 Partial Content"
A_COMMIT = b"0" * 64 + b"\n"


def reply(
    body: bytes, status: bytes = OK, *, length: int | None = None, more: bytes = b""
) -> Reply:
    """An answer; `length` is what it says of its body."""
    said = len(body) if length is None else length
    head = OURS % status + b"Content-Length: %d\r\n" % said + more + b"\r\n"
    return lambda to: to.sendall(head + body)


def document(value: object) -> Reply:
    return reply(msgspec.msgpack.encode(value))


def endless(status: bytes = OK, more: bytes = b"") -> Reply:
    """A body of zeros without an end, that says nothing of its length."""

    def answer(to: socket.socket) -> None:
        to.sendall(OURS % status + more + b"\r\n")
        flood(to, bytes(1 << 16))

    return answer


def chunks(to: socket.socket) -> None:
    """The same, in chunks."""
    to.sendall(OURS % OK + b"Transfer-Encoding: chunked\r\n\r\n")
    flood(to, b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16)))


def slowly(to: socket.socket) -> None:
    trickle(to, OURS % OK + b"Content-Length: 1000\r\n\r\n" + bytes(1000), 0.05)


def silence(to: socket.socket) -> None:
    to.recv(1 << 16)


def patiences_s(lies: Lies) -> Iterator[float]:
    """How long a client of this server waits, the first time and again, on machines so slow."""
    if {silence, slowly} & set(lies.values()):
        yield from patiences(STALLED_S)
    else:
        yield IDLE_S


def ranged(body: bytes, said: bytes, length: int | None = None) -> Reply:
    return reply(body, PARTIAL, length=length, more=b"Content-Range: bytes " + said + b"\r\n")


LIES: dict[str, Lies] = {
    "more refs than any": {"values": reply(many_refs(150_000, b"x"))},
    "refs without end": {"values": endless()},
    "refs without end, in chunks": {"values": chunks},
    "refs a byte at a time": {"values": slowly},
    "no answer": {"values": silence},
    "garbage": {"values": reply(noise(1000))},
    "a deep document": {"values": reply(b"\x81" * 100_000)},
    "a huge count": {"values": reply(b"\xdf\xff\xff\xff\xff")},
    "a name that is a path": {"values": document({"refs/heads/../../x": A_COMMIT})},
    "a name from the root": {"values": document({"/etc/passwd": A_COMMIT})},
    "a name with control characters": {"values": document({"refs/heads/\x1b[2J": A_COMMIT})},
    "a name that is an option": {"values": document({"refs/heads/--force": A_COMMIT})},
    "a ref that is no id": {"values": document({"refs/heads/main": b"ref: refs/heads/x"})},
    "a ref of megabytes": {"values": document({"refs/heads/main": bytes(8 << 20)})},
    "a HEAD without end": {"get": endless()},
    "a HEAD elsewhere": {"get": reply(b"ref: refs/heads/../../../x\n")},
    "packs without end": {"keys": endless()},
    "packs that are not there": {"keys": reply(many_packs(10))},
    "packs elsewhere": {"keys": document(["packs/../../x", "packs/" + "a" * 64 + ".pack"])},
    "a pack of absurd size": {"size": reply(b"", length=1 << 62)},
    "a pack of no size": {"size": reply(b"", length=0)},
    "a pack of a size that is none": {"size": reply(b"", length=-5)},
    "all bytes zero": {"read": ranged(bytes(64 << 10), b"0-65535/65536")},
    "a range without end": {"read": endless(PARTIAL, b"Content-Range: bytes 0-9/10\r\n")},
    "a range of absurd length": {"read": ranged(b"", b"0-%d/%d" % (1 << 60, 1 << 61), 1 << 60)},
    "another range": {"read": ranged(b"x" * 10, b"90-99/1000")},
    "everything instead of a range": {"read": endless(OK)},
    "half a range": {"read": ranged(b"x", b"0-99/100", 100)},
    "nothing of a range": {"read": reply(b"", b"416 No")},
    "a gone pack": {"read": reply(b"", b"404 Not Found")},
    "an error without end": {"read": endless(b"409 Conflict")},
    "an error of megabytes": {"read": reply(bytes(8 << 20), b"409 Conflict")},
    "a redirect": {"values": reply(b"", b"302 Found", more=b"Location: http://127.0.0.1:1/\r\n")},
}
LARGE: dict[str, Callable[[], Lies]] = {
    "a million refs": lambda: {"values": reply(many_refs(1_000_000, A_COMMIT))},
    "a million packs": lambda: {"keys": reply(many_packs(1_000_000))},
}


@contextmanager
def lying(honest: ByteStore, lies: Lies, asked: set[str] | None = None) -> Iterator[str]:
    """A server that tells the truth about `honest`, but for some questions; those `asked`."""

    def script(to: socket.socket, head: bytes) -> None:
        request = _Request(head, to)
        if asked is not None:
            asked.add(request.what)
        with contextlib.suppress(OSError):
            lies.get(request.what, request.truth(honest))(to)

    with answering(script) as url:
        yield url


class _Request:
    """What is asked, read to its end: nobody hears an answer while still sending."""

    def __init__(self, begin: bytes, to: socket.socket) -> None:
        head, _, body = begin.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = target.partition("?")
        self.key, self.prefix = (
            unquote(path.partition("value/")[2]),
            unquote(query[7:].partition("&")[0]),
        )
        self.range = re.search(rb"range: bytes=(\d+)-(\d+)", head.lower())
        self.what = {"HEAD": "size", "PUT": "put"}.get(method, "get")
        if self.what == "get" and not self.key:
            self.what = path.rpartition("/")[2]
        elif self.what == "get" and self.range is not None:
            self.what = "read"
        length = re.search(rb"content-length: (\d+)", head.lower())
        self.length = 0 if length is None else int(length[1])
        missing = self.length - len(body)
        while missing > 0 and (piece := to.recv(1 << 16)):
            missing -= len(piece)

    def truth(self, honest: ByteStore) -> Reply:
        if self.what == "keys":
            return document(list(honest.list(self.prefix)))
        if self.what == "values":
            return document(honest.values(self.prefix))
        if self.what == "holds":
            return reply(bytes(self.length // 34))  # as msgpack an id has 34 bytes
        if self.what in ("put", "swap"):
            return reply(msgspec.msgpack.encode({"swapped": True}), b"201 Created")
        value = honest.get(self.key)
        if value is None:
            return reply(b"", b"404 Not Found")
        if self.what == "size":
            return reply(b"", length=len(value))
        if self.range is None:
            return reply(value)
        first, end = int(self.range[1]), min(int(self.range[2]) + 1, len(value))
        if first >= len(value):
            return reply(b"", b"416 No")
        return ranged(value[first:end], b"%d-%d/%d" % (first, end - 1, len(value)))


@pytest.mark.parametrize("name", sorted([*LIES, *LARGE]))
def test_a_server_that_lies(name: str, repo: Repository) -> None:
    lies = LIES[name] if name in LIES else LARGE[name]()
    forge = Forge()
    commit = forge.model(RAW)
    honest = remote_of(forge.packs(), {"main": commit})
    asked: set[str] = set()
    for patience_s in patiences_s(lies):
        with (
            lying(honest, lies, asked) as url,
            client(url, patience_s) as store,
            bounded(200 << 20),
            pytest.raises((RemoteRefused, Corruption, RemoteUnreachable)) as caught,
        ):
            fetch(repo, "origin", store)
        if asked >= lies.keys():
            break
    assert asked >= lies.keys()
    assert len(str(caught.value)) < 2000
    assert visible(repo) == {}
    with lying(honest, {}) as url, client(url) as store:
        fetch(repo, "origin", store)
    assert repo.refs.read("refs/remotes/origin/main") == commit
    assert repo.fsck(read_data=True).ok


GRUDGES: dict[str, Lies] = {
    "holds of another length": {"holds": reply(b"\1")},
    "holds that are neither yes nor no": {"holds": reply(b"\7" * 100)},
    "holds without end": {"holds": endless()},
    "a swap that cannot be read": {"swap": reply(noise(100))},
    "a swap without end": {"swap": endless()},
    "a swap never answered": {"swap": silence},
    "a refusal of megabytes": {"swap": reply(bytes(8 << 20), b"409 Conflict")},
    "a refusal that commands the terminal": {
        "swap": reply(
            msgspec.msgpack.encode({"kind": "refused", "message": "\x1b[2J\x07", "hint": "\x9b"}),
            b"409 Conflict",
        )
    },
}


@pytest.mark.parametrize("name", sorted(GRUDGES))
def test_a_server_that_lies_to_a_pusher(name: str, tmp_path: Path) -> None:
    """It is told so, or that nobody answers; here nothing is noted, and nothing lost."""
    family = Family(tmp_path, layers=1)
    tip = family.repo.resolve("main")
    before = visible(family.repo)
    asked: set[str] = set()
    moved: list[object] = []
    for patience_s in patiences_s(GRUDGES[name]):
        with (
            lying(MemoryByteStore(), GRUDGES[name], asked) as url,
            client(url, patience_s) as store,
            bounded(200 << 20),
            pytest.raises(MergepipeError) as caught,
        ):
            push(family.source(), store, [Wanted("refs/heads/main", tip)], moved=moved.append)
        if asked >= GRUDGES[name].keys():
            break
    assert isinstance(caught.value, RemoteRefused | RemoteUnreachable | Corruption)
    assert "\x1b" not in str(caught.value) + (caught.value.hint or "")
    assert asked >= GRUDGES[name].keys()
    assert moved == []
    assert visible(family.repo) == before
    family.repo.close()
