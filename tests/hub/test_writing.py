"""Uploads by the hub's protocol: what becomes a commit, what is refused, what is left behind."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mergepipe.api import Repository
from tests.cli.models import tensors, write_model, write_sharded
from tests.hub.conftest import Reply, Served, commit_models, serving

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
HEADER = {"key": "header", "value": {"summary": "Teach", "description": "it more"}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub that tests may write to, each to branches of its own."""
    folder = tmp_path_factory.mktemp("written") / "zoo"
    commit_models(folder, ("base",))
    with serving(folder) as served:
        yield served


def own_branch(hub: Served, name: str) -> str:
    """A model that is like `base`, for one test."""
    with Repository.open(hub.folder) as repository:
        repository.branch(name, "base")
    return f"zoo/{name}"


def file_line(path: str, content: bytes) -> dict[str, Any]:
    value = {"content": base64.b64encode(content).decode(), "path": path, "encoding": "base64"}
    return {"key": "file", "value": value}


def uploaded_line(path: str, content: bytes) -> dict[str, Any]:
    value = {"path": path, "algo": "sha256", "oid": sha256(content), "size": len(content)}
    return {"key": "lfsFile", "value": value}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit(hub: Served, model: str, *lines: dict[str, Any], headers: Any = None) -> Reply:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (HEADER, *lines))
    return hub.ask(f"/api/models/{model}/commit/main", "POST", headers, body)


def batch(hub: Served, model: str, content: bytes) -> dict[str, Any]:
    asked = {
        "operation": "upload",
        "transfers": ["basic", "multipart", "xet"],
        "objects": [{"oid": sha256(content), "size": len(content)}],
    }
    place = f"/{model}.git/info/lfs/objects/batch"
    reply = hub.ask(place, "POST", body=json.dumps(asked).encode())
    assert reply.status == 200
    document: Any = reply.document
    assert document["transfer"] == "basic"
    found: dict[str, Any] = document["objects"][0]
    return found


def put(hub: Served, href: str, content: bytes) -> Reply:
    return hub.ask(href.removeprefix(hub.url), "PUT", body=content)


def files_of(hub: Served, branch: str) -> dict[str, bytes]:
    with Repository.open(hub.folder) as repository:
        return {
            entry.path: b"".join(repository.contents.read_file(branch, entry.path))
            for entry in repository.contents.files(branch)
        }


def left_behind(hub: Served) -> int:
    """Bytes of unfinished files that a repository holds."""
    return sum(
        path.stat().st_size
        for path in (hub.folder / ".mergepipe" / "tmp").rglob("*")
        if path.is_file()
    )


def test_files_come_with_a_commit_or_before_it(hub: Served, tmp_path: Path) -> None:
    model = write_model(tmp_path / "tuned", tensors(changed=1))
    weights = (model / "model.safetensors").read_bytes()
    action = batch(hub, "zoo/tuned", weights)["actions"]
    assert put(hub, action["upload"]["href"], weights).status == 200
    asked = json.dumps({"oid": sha256(weights), "size": len(weights)}).encode()
    assert hub.ask(action["verify"]["href"].removeprefix(hub.url), "POST", body=asked).status == 200
    assert "actions" not in batch(hub, "zoo/tuned", weights)
    assert hub.ask("/api/models/zoo/tuned").status == 404

    card = b"---\nbase_model: zoo/base\n---\nTuned.\n"
    reply = commit(
        hub, "zoo/tuned", file_line("README.md", card), uploaded_line("model.safetensors", weights)
    )
    assert reply.status == 200, reply.body
    assert files_of(hub, "tuned") == {"README.md": card, "model.safetensors": weights}
    assert left_behind(hub) == 0
    with Repository.open(hub.folder) as repository:
        identity, made = repository.commit_of("tuned")
        base = repository.branches()["base"]
        assert (made.message, made.trained_from, made.leans_on) == ("Teach\n\nit more", base, base)
        assert reply.document["commitOid"] == identity.hex()[:40]
    # Known from then on: nobody sends it again, here or to another branch.
    assert "actions" not in batch(hub, "zoo/other", weights)
    assert commit(hub, "zoo/other", uploaded_line("m.safetensors", weights)).status == 200
    assert files_of(hub, "other") == {"m.safetensors": weights}


def test_other_files_stay_and_lean_as_before(hub: Served, tmp_path: Path) -> None:
    model = own_branch(hub, "stays")
    before = files_of(hub, "stays")
    assert commit(hub, model, file_line("note.txt", b"1")).status == 200
    assert files_of(hub, "stays") == {**before, "note.txt": b"1"}
    deleted = {"key": "deletedFile", "value": {"path": "note.txt"}}
    assert commit(hub, model, deleted, file_line("sub/a.txt", b"a")).status == 200
    assert files_of(hub, "stays") == {**before, "sub/a.txt": b"a"}
    assert commit(hub, model, {"key": "deletedFolder", "value": {"path": "sub/"}}).status == 200
    assert files_of(hub, "stays") == before
    tip = commit(hub, model, file_line("config.json", before["config.json"]))
    with Repository.open(hub.folder) as repository:
        assert tip.document["commitOid"] == repository.branches()["stays"].hex()[:40]
        modes = {entry.path: entry.executable for entry in repository.contents.files("stays")}
        assert modes["run.sh"]
        assert repository.fsck(read_data=True).ok


def test_shards_that_come_one_after_the_other(hub: Served, tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "sharded")
    index = "model.safetensors.index.json"
    one, two, names = (
        (folder / each).read_bytes() for each in ("a.safetensors", "b.safetensors", index)
    )
    early = commit(hub, "zoo/big", file_line("a.safetensors", one), file_line(index, names))
    assert early.status == 400
    assert b"b.safetensors" in early.body
    assert hub.ask("/api/models/zoo/big").status == 404
    assert commit(hub, "zoo/big", file_line("a.safetensors", one)).status == 200
    assert (
        commit(hub, "zoo/big", file_line("b.safetensors", two), file_line(index, names)).status
        == 200
    )
    with Repository.open(hub.folder) as repository:
        # Each shard leans on the model that it is like, though its own branch had only the other.
        assert repository.commit_of("big")[1].leans_on in repository.branches().values()
        first = repository.commit_of("big~1")[0]
        assert repository.commit_of("big")[1].leans_on != first
        assert repository.tensors("big")["head"].shape == (64, 32)
    gone = commit(hub, "zoo/big", {"key": "deletedFile", "value": {"path": "b.safetensors"}})
    assert gone.status == 400
    assert commit(hub, "zoo/big", file_line("note", b"x")).status == 200
    assert left_behind(hub) == 0


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([file_line("../up", b"x")], 400),
        ([file_line("/etc/passwd", b"x")], 400),
        ([file_line(".git/config", b"x")], 400),
        ([file_line("a//b", b"x")], 400),
        ([file_line("config.json/b", b"x")], 400),
        ([uploaded_line("model.safetensors", b"never uploaded")], 400),
        ([{"key": "lfsFile", "value": {"path": "a", "oid": "../../x", "algo": "sha256"}}], 400),
        ([{"key": "deletedFile", "value": {"path": "none"}}], 404),
        ([{"key": "file", "value": {"path": "a", "content": "no base64!"}}], 400),
        ([{"key": "file", "value": {"path": "a", "content": "QQ=="}, "more": "QQ"}], 200),
        ([{"key": "file", "value": {"path": "a", "content": "QQ==QQ=="}}], 400),
        ([{"key": "file", "value": {"path": "a"}}], 400),
        ([{"key": "file", "value": {"content": "QQ=="}}], 400),
        ([{"key": "file", "value": []}], 400),
        ([{"key": "symlink", "value": {"path": "a"}}], 400),
        ([{"key": "header", "value": {"summary": "two"}}], 400),
        ([file_line("model.safetensors", b"no weights")], 400),
        ([{"key": "header"}], 400),
    ],
)
def test_commits_that_are_refused_change_nothing(
    hub: Served, lines: list[dict[str, Any]], status: int
) -> None:
    with Repository.open(hub.folder) as repository:
        before = repository.branches()
    reply = commit(hub, "zoo/base", *lines)
    assert reply.status == status, reply.body
    assert left_behind(hub) == 0
    if status != 200:
        assert reply.document["error"]
        with Repository.open(hub.folder) as repository:
            assert repository.branches() == before


def test_bodies_that_are_no_commit(hub: Served) -> None:
    place = "/api/models/zoo/base/commit/main"
    whole = json.dumps(HEADER).encode() + b"\n" + json.dumps(file_line("a", b"abc" * 99)).encode()
    for body in (
        b"",
        b"\n\n",
        b"{",
        b"[]\n",
        b"\xff\xfe\n",
        whole[:-50],
        whole[80:],
        b"x" * (2 << 20),
        b"\n" * (16 << 20),
        b"{}" * 99,
    ):
        assert hub.ask(place, "POST", body=body).status == 400, body[:20]
    assert hub.ask("/api/models/zoo/base/commit/none", "POST", body=whole).status == 404
    assert hub.ask("/api/models/none/base/commit/main", "POST", body=whole).status == 404
    assert hub.ask("/api/models/zoo/a..b/commit/main", "POST", body=whole).status == 404
    assert hub.ask(place + "?create_pr=1", "POST", body=whole).status == 403
    assert left_behind(hub) == 0


def test_uploads_that_are_not_what_was_announced(hub: Served) -> None:
    content = b"content" * 1000
    href = batch(hub, "zoo/base", content)["actions"]["upload"]["href"]
    for wrong in (content[:-1], content + b"x", b"C" + content[1:], b""):
        assert put(hub, href, wrong).status == 400
    other = href.replace(sha256(content), sha256(b"else"))
    assert put(hub, other, b"else").status == 403
    assert put(hub, href.partition("?")[0], content).status == 403
    assert put(hub, href.replace("size=7000", "size=4"), content[:4]).status == 403
    assert commit(hub, "zoo/base", uploaded_line("a.bin", content)).status == 400
    assert left_behind(hub) == 0
    place = "/zoo/base.git/info/lfs/objects/batch"
    for asked in (
        {},
        {"objects": [{"oid": "x", "size": 1}]},
        {"operation": "download", "objects": []},
    ):
        assert hub.ask(place, "POST", body=json.dumps(asked).encode()).status == 422


def test_an_upload_that_is_cut_short_leaves_nothing(hub: Served) -> None:
    content = b"content" * 100_000
    href = batch(hub, "zoo/base", content)["actions"]["upload"]["href"]
    place = urlsplit(href)
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(
            f"PUT {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
        )
        line.sendall(content[: len(content) // 2])
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(
            f"POST /api/models/zoo/base/commit/main HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Length: 999999\r\n\r\n{json.dumps(HEADER)}\n"
            '{"key": "file", "value": {"content": "QUJD'.encode()
        )
    assert put(hub, href, content).status == 200
    assert commit(hub, "zoo/base", uploaded_line("a.bin", content)).status == 200
    # The server lets go of a cut request when it hears of it: the next answer comes after that.
    while left_behind(hub):
        assert hub.ask("/api/models/zoo/base").status == 200


def test_uploaders_who_race_both_get_in_unless_they_named_a_parent(hub: Served) -> None:
    model = own_branch(hub, "raced")
    with Repository.open(hub.folder) as repository:
        seen = repository.branches()["raced"].hex()[:40]
    replies: list[Reply] = []

    def add(number: int) -> None:
        replies.append(commit(hub, model, file_line(f"{number}.txt", b"%d" % number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 6
    files = files_of(hub, "raced")
    assert all(files[f"{number}.txt"] == b"%d" % number for number in range(6))

    header = {"key": "header", "value": {"summary": "late", "parentCommit": seen}}
    body = b"".join(json.dumps(each).encode() + b"\n" for each in (header, file_line("b", b"b")))
    late = hub.ask("/api/models/zoo/raced/commit/main", "POST", body=body)
    assert late.status == 412
    assert "b" not in files_of(hub, "raced")


def test_a_model_is_made_before_its_first_commit(hub: Served) -> None:
    asked = json.dumps({"name": "fresh", "organization": "zoo", "type": "model"}).encode()
    made = hub.ask("/api/repos/create", "POST", body=asked)
    assert made.document["url"] == f"{hub.url}/zoo/fresh"
    assert hub.ask("/api/models/zoo/fresh").document["siblings"] == []
    assert hub.ask("/api/models/zoo/fresh/tree/main").document == []
    told = hub.ask("/zoo/fresh/resolve/main/README.md", "HEAD")
    assert told.headers["x-error-code"] == "EntryNotFound"
    assert commit(hub, "zoo/fresh", file_line("a", b"a")).status == 200
    assert hub.ask("/api/repos/create", "POST", body=asked).status == 409
    for wrong in (b"{}", b"[]", b"{", b'{"name": "x", "type": "dataset"}', b'{"name": 1}'):
        assert hub.ask("/api/repos/create", "POST", body=wrong).status == 400
    for name in ("..", "a--b", "x.git", "-x"):
        asked = json.dumps({"name": name, "organization": "zoo"}).encode()
        assert hub.ask("/api/repos/create", "POST", body=asked).status == 404


def test_branches_and_tags(hub: Served) -> None:
    assert (
        hub.ask("/api/models/zoo/branch/side", "POST", body=b'{"startingPoint": "base"}').status
        == 200
    )
    assert (
        hub.ask("/api/models/zoo/branch/side", "POST", body=b'{"startingPoint": "base"}').status
        == 409
    )
    assert hub.ask("/api/models/zoo/side/tag/main", "POST", body=b'{"tag": "v1"}').status == 200
    assert hub.ask("/api/models/zoo/side/revision/v1").status == 200
    assert hub.ask("/api/models/zoo/side/tag/main", "POST", body=b'{"tag": "v1"}').status == 409
    assert hub.ask("/api/models/zoo/side/tag/main", "POST", body=b'{"tag": "a b"}').status == 400
    assert hub.ask("/api/models/zoo/side/branch/x", "POST", body=b"{}").status == 400


def test_cards_are_looked_at(hub: Served) -> None:
    for content, status in (
        ("---\na: b\n---\nx", 200),
        ("no card", 200),
        ("---\na: [\n---\n", 400),
    ):
        body = json.dumps({"content": content, "repoType": "model"}).encode()
        assert hub.ask("/api/validate-yaml", "POST", body=body).status == status


def test_who_may_only_read_writes_nothing(tmp_path: Path) -> None:
    commit_models(tmp_path / "zoo", ("base",))
    tokens = {"MP_SERVE_TOKENS": f"read:{READ},write:{WRITE}"}
    reader = {"Authorization": f"Bearer {READ}"}
    writer = {"Authorization": f"Bearer {WRITE}"}
    with serving(tmp_path / "zoo", environment=tokens) as hub:
        assert commit(hub, "zoo/base", file_line("a", b"a")).status == 401
        refused = commit(hub, "zoo/base", file_line("a", b"a"), headers=reader)
        assert refused.status == 403
        assert "may only read" in refused.headers["x-error-message"]
        for place in ("/zoo/base.git/info/lfs/objects/batch", "/api/repos/create"):
            assert hub.ask(place, "POST", reader, b"{}").status == 403
        assert commit(hub, "zoo/base", file_line("a", b"a"), headers=writer).status == 200
    with serving(tmp_path / "zoo", "--read-only", tmp_path / "zoo") as hub:
        assert commit(hub, "zoo/base", file_line("b", b"b")).status == 403
    assert "b" not in files_of(hub, "base")
