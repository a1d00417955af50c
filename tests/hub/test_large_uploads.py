"""Files too large to come inside a commit: by xet, by git-lfs, in parts, and cut short."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mergepipe.api import Repository
from mergepipe.hub.xet.hashes import chunk_hash, to_hex
from tests.cli.models import tensors, write_model
from tests.hub import large_files
from tests.hub.conftest import Reply, Served, client, commit_models, serving
from tests.hub.test_writing import (
    READ,
    WRITE,
    commit,
    files_of,
    left_behind,
    sha256,
    uploaded_line,
)
from tests.hub.xet_bodies import chunk, frame, shard, xorb

PIECES = [random.Random(each).randbytes(9000 + each) for each in range(40)]
CONTENT = b"".join(PIECES)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub that tests may write to, each to branches of its own."""
    folder = tmp_path_factory.mktemp("large") / "zoo"
    commit_models(folder, ("base",))
    with serving(folder) as served:
        yield served


class Xet:
    """An upload by xet, a request at a time."""

    def __init__(self, hub: Served, model: str) -> None:
        self._hub = hub
        reply = hub.ask(f"/api/models/{model}/xet-write-token/main")
        assert reply.status == 200
        assert reply.document["casUrl"] == reply.headers["x-xet-cas-url"]
        self.place = reply.document["casUrl"].removeprefix(hub.url)
        self.headers = {"Authorization": f"Bearer {reply.document['accessToken']}"}

    def post(self, path: str, body: bytes, headers: Any = None) -> Reply:
        return self._hub.ask(f"{self.place}/{path}", "POST", headers or self.headers, body)

    def xorb(self, pieces: list[bytes]) -> str:
        name, body = xorb(pieces)
        reply = self.post(f"v1/xorbs/default/{name}", body)
        assert reply.status == 200, reply.body
        return name


@pytest.mark.parametrize("mode", ["xet", "lfs"])
def test_the_hubs_client_uploads_files_of_any_size(hub: Served, tmp_path: Path, mode: str) -> None:
    pytest.importorskip("huggingface_hub", minversion="1")
    if mode == "xet":
        pytest.importorskip("hf_xet")
    folder = write_model(tmp_path / "model", tensors(changed=3))
    (folder / "large.bin").write_bytes(b"".join(random.Random(7).choices(PIECES, k=200)))
    # One that comes in parts where it comes by git-lfs.
    with (folder / "sparse.bin").open("wb") as sparse:
        sparse.truncate((64 << 20) + 5)
    words = (large_files.__file__, f"zoo/by-{mode}", folder, mode)
    done = client(hub, tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["same"]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files["more/bytes.bin"] = b"abc" * 500_000
    assert files_of(hub, f"by-{mode}") == files
    assert told["sha256"] == {
        name: sha256(content) for name, content in files.items() if len(content) > 1 << 20
    }
    for name, where in told["downloaded"].items():
        assert Path(where).read_bytes() == files[name]


def test_chunks_become_a_file_that_a_commit_takes(hub: Served) -> None:
    upload = Xet(hub, "zoo/chunked")
    first, second = upload.xorb(PIECES[:25]), upload.xorb(PIECES[25:])
    again, body = xorb(PIECES[:25])
    reply = upload.post(f"v1/xorbs/default/{again}", body + b"XETBLOB" + bytes(99))
    assert reply.document == {"was_inserted": False}
    lengths = [sum(map(len, each)) for each in (PIECES[:25], PIECES[25:], PIECES[3:5])]
    parts = [(first, lengths[0], 0, 25), (second, lengths[1], 0, 15), (first, lengths[2], 3, 5)]
    content = CONTENT + b"".join(PIECES[3:5])
    assert upload.post("v1/shards", shard(sha256(content), parts)).document == {"result": 1}
    assert hub.ask("/api/models/zoo/chunked").status == 404
    assert commit(hub, "zoo/chunked", uploaded_line("a.bin", content)).status == 200
    assert files_of(hub, "chunked") == {"a.bin": content}
    # Who uploads on names chunks that are still there; who begins anew is led elsewhere.
    whole = upload.post("v1/shards", shard(sha256(CONTENT), parts[:2]))
    assert whole.status == 200
    assert commit(hub, "zoo/chunked", uploaded_line("b.bin", CONTENT)).status == 200
    assert Xet(hub, "zoo/chunked").place != upload.place


def test_an_upload_that_broke_off_goes_on_where_it_was(hub: Served) -> None:
    before = Xet(hub, "zoo/resumed")
    first = before.xorb(PIECES[:25])
    upload = Xet(hub, "zoo/resumed")
    assert upload.place == before.place
    parts = [(first, sum(map(len, PIECES[:25])), 0, 25)]
    content = b"".join(PIECES[:25])
    assert upload.post("v1/shards", shard(sha256(content), parts)).status == 200
    assert commit(hub, "zoo/resumed", uploaded_line("a.bin", content)).status == 200


def test_chunks_are_packed_in_every_way_that_clients_have(hub: Served) -> None:
    # Eight bytes as they are, then sixteen that repeat the last four, then five as they are.
    block = bytes([0x8C]) + b"abcdwxyz" + b"\x04\x00" + bytes([0x50]) + b"56789"
    plain = b"abcdwxyz" + b"wxyz" * 4 + b"56789"
    grouped = b"".join(plain[at::4] for at in range(4))
    repeated = b"wxyz" * 6 + b"abcde"
    ways = [
        (frame((block, False)), 1, plain),
        (frame((block, False), (b"more", True)), 1, plain + b"more"),
        (frame((grouped, True)), 2, plain),
        # A block that repeats what an earlier one ended with.
        (frame((b"wxyz", True), (b"\x0f\x04\x00\x01\x50abcde", False), flags=0x40), 1, repeated),
    ]
    upload = Xet(hub, "zoo/packed")
    for packed, scheme, content in ways:
        name = to_hex(chunk_hash(content))
        body = chunk(packed, len(content), scheme)
        reply = upload.post(f"v1/xorbs/default/{name}", body)
        assert reply.status == 200, (scheme, reply.body)


def bad_xorbs() -> dict[str, bytes]:
    packed = frame((b"\x8cabcdwxyz\x04\x00\x50" + b"56789", False))
    return {
        "nothing": b"",
        "another": xorb(PIECES[5:9])[1],
        "cut": xorb(PIECES[:2])[1][:-1],
        "cut in a header": xorb(PIECES[:2])[1] + b"\0\0\0",
        "version": b"\x01" + xorb(PIECES[:2])[1][1:],
        "scheme": chunk(b"abc", 3, 9),
        "not as long": chunk(b"abc", 4),
        "no chunk so long": chunk(bytes(200 << 10), 200 << 10),
        "empty chunk": chunk(b"", 0),
        "no frame": chunk(b"abcdefghijkl", 20, 1),
        "shorter": chunk(packed, 28, 1),
        "longer": chunk(packed, 30, 1),
        "cut frame": chunk(packed[:-6], 29, 1),
        "more after it": chunk(packed + b"x", 29, 1),
        "from before the start": chunk(frame((b"\x4fabcd\x05\x00\x00\x50abcde", False)), 29, 1),
        "back by nothing": chunk(frame((b"\x4fabcd\x00\x00\x00\x50abcde", False)), 29, 1),
        "dictionary": chunk(b"\x04\x22\x4d\x18\x61\x40\x00" + packed[7:], 29, 1),
        "block beyond": chunk(packed[:7] + b"\xff\xff\xff\x7f", 29, 1),
        "length that goes on": chunk(frame((b"\xff" * 50, False)), 29, 1),
    }


def test_xorbs_that_are_refused_leave_nothing(hub: Served) -> None:
    upload = Xet(hub, "zoo/base")
    before = left_behind(hub)
    name, _ = xorb(PIECES[:2])
    for what, body in bad_xorbs().items():
        reply = upload.post(f"v1/xorbs/default/{name}", body)
        assert reply.status == 400, (what, reply.body)
    assert left_behind(hub) == before
    assert upload.post("v1/xorbs/default/nothing", b"x").status == 400
    assert upload.post("v1/xorbs/default/..%2F..%2Fx", b"x").status == 400


def test_shards_that_are_refused_leave_nothing(hub: Served) -> None:
    upload = Xet(hub, "zoo/base")
    content = b"".join(PIECES[:39])
    name, length = upload.xorb(PIECES), len(content)
    before = left_behind(hub)
    good = shard(sha256(content), [(name, length, 0, 39)])
    for what, body in {
        "nothing": b"",
        "no shard": b"x" * 200,
        "cut": good[:-96],
        "cut in a file": good[:100],
        "version": good[:32] + b"\x09" + good[33:],
        "without SHA-256": good[:80] + b"\0\0\0\0" + good[84:],
        "parts without end": good[:84] + b"\xff\xff\xff\xff" + good[88:],
        "another SHA-256": shard(sha256(b"else"), [(name, length, 0, 39)]),
        "another size": shard(sha256(content), [(name, length + 1, 0, 39)]),
        "chunks beyond": shard(sha256(content), [(name, length, 0, 41)]),
        "no chunks": shard(sha256(content), [(name, 0, 4, 4)]),
        "unknown xorb": shard(sha256(content), [("ab" * 32, length, 0, 39)]),
    }.items():
        reply = upload.post("v1/shards", body)
        assert reply.status == 400, (what, reply.body)
        assert reply.document["error"]
    assert left_behind(hub) == before
    assert commit(hub, "zoo/base", uploaded_line("a.bin", content)).status == 400
    assert upload.post("v1/shards", good).status == 200


def test_who_may_upload_by_xet(tmp_path: Path) -> None:
    commit_models(tmp_path / "zoo", ("base",))
    tokens = {"MP_SERVE_TOKENS": f"read:{READ},write:{WRITE}"}
    with serving(tmp_path / "zoo", environment=tokens) as hub:
        place = "/api/models/zoo/base/xet-write-token/main"
        assert hub.ask(place).status == 401
        assert hub.ask(place, headers={"Authorization": f"Bearer {READ}"}).status == 403
        writer = {"Authorization": f"Bearer {WRITE}"}
        reply = hub.ask(place, headers=writer)
        assert reply.status == 200
        where = reply.document["casUrl"].removeprefix(hub.url)
        name, body = xorb(PIECES)
        for headers in ({}, writer, {"Authorization": f"Bearer 99999999999.{'0' * 64}"}):
            assert hub.ask(f"{where}/v1/xorbs/default/{name}", "POST", headers, body).status == 401
        given = {"Authorization": f"Bearer {reply.document['accessToken']}"}
        assert hub.ask(f"{where}/v1/xorbs/default/{name}", "POST", given, body).status == 200
        assert hub.ask(f"{where}/v1/chunks/default/{name}", headers=given).status == 404
        other = where[:-32] + "0" * 32
        assert hub.ask(f"{other}/v1/shards", "POST", given, body).status == 401
        assert hub.ask("/api/models/zoo/base", headers=given).status == 401
        assert hub.ask("/api/models/zoo/base/xet-read-token/main", headers=writer).status == 404
    with serving(tmp_path / "zoo", tmp_path / "zoo", "--read-only", environment=tokens) as hub:
        assert hub.ask(place, headers=writer).status == 403


def in_parts(hub: Served, model: str, content: bytes) -> dict[str, Any]:
    asked = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": sha256(content), "size": len(content)}],
    }
    place = f"/{model}.git/info/lfs/objects/batch"
    document: Any = hub.ask(place, "POST", body=json.dumps(asked).encode()).document
    assert document["transfer"] == "multipart"
    upload: dict[str, Any] = document["objects"][0]["actions"]["upload"]
    return upload


def test_parts_come_one_by_one_and_again(hub: Served) -> None:
    content = bytes(64 << 20) + b"the end"
    upload = in_parts(hub, "zoo/parted", content)
    length = int(upload["header"]["chunk_size"])
    pieces = [content[at : at + length] for at in range(0, len(content), length)]
    places = [upload["header"][str(each + 1)].removeprefix(hub.url) for each in range(len(pieces))]
    assert hub.ask(places[1], "PUT", body=pieces[1][:-1]).status == 400
    assert hub.ask(places[1], "PUT", body=pieces[1] + b"!").status == 400
    tags = []
    for place, piece in zip(places, pieces, strict=True):
        for _ in range(2):
            reply = hub.ask(place, "PUT", body=piece)
            assert reply.status == 200
        tags.append(reply.headers["etag"])
    whole = upload["href"].removeprefix(hub.url)

    def complete(*parts: Any) -> Reply:
        return hub.ask(whole, "POST", body=json.dumps({"parts": parts}).encode())

    numbered = [{"partNumber": each + 1, "etag": tag} for each, tag in enumerate(tags)]
    assert complete().status == 400
    assert complete(numbered[0]).status == 400
    assert complete(*reversed(numbered[:1]), {"partNumber": 2, "etag": "none"}).status == 400
    assert complete({"partNumber": "1"}).status == 422
    assert hub.ask(whole.partition("?")[0], "POST", body=b"{}").status == 403
    assert complete(*reversed(numbered)).status == 200
    assert complete(*numbered).status == 200
    assert commit(hub, "zoo/parted", uploaded_line("a.bin", content)).status == 200
    with Repository.open(hub.folder) as repository:
        digest = hashlib.sha256()
        for raw in repository.contents.read_file("parted", "a.bin"):
            digest.update(raw)
    assert digest.hexdigest() == sha256(content)


def test_what_is_too_large_is_refused_before_it_is_sent(hub: Served) -> None:
    asked = {"files": [{"path": "a.bin", "size": 1 << 50, "sample": ""}]}
    place = "/api/models/zoo/base/preupload/main"
    reply = hub.ask(place, "POST", body=json.dumps(asked).encode())
    assert reply.status == 413
    assert "receive.limit" in reply.headers["x-error-message"]
