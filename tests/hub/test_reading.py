"""What the hub's protocol answers about models, byte for byte and header for header."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mergepipe.api import Repository
from tests.cli.models import tensors, write_model
from tests.hub.conftest import Served, serving


def tip(hub: Served, branch: str) -> str:
    with Repository.open(hub.folder) as repository:
        return repository.branches()[branch].hex()


def original(hub: Served, branch: str, name: str) -> bytes:
    return (hub.folder.parent / f"zoo-{branch}" / name).read_bytes()


def test_models_are_branches(hub: Served) -> None:
    listed = hub.ask("/api/models").document
    assert [model["id"] for model in listed] == ["zoo/base", "zoo/chat"]
    assert listed[1]["sha"] == tip(hub, "chat")[:40]
    assert [each["id"] for each in hub.ask("/api/models?search=CHA&author=zoo").document] == [
        "zoo/chat"
    ]
    assert hub.ask("/api/models?author=else").document == []


def test_lists_come_in_pages(hub: Served) -> None:
    first = hub.ask("/api/models?limit=1")
    link, _, rest = first.headers["link"].partition(">")
    assert rest == '; rel="next"'
    assert link.startswith("<" + hub.url)
    second = hub.ask(link.removeprefix("<" + hub.url))
    assert [model["id"] for model in second.document] == ["zoo/chat"]
    assert "link" not in second.headers
    tree = hub.ask("/api/models/zoo/base/tree/main?limit=2")
    assert len(tree.document) == 2
    assert "cursor=2" in tree.headers["link"]


def test_a_model_and_its_files(hub: Served) -> None:
    info: Any = hub.ask("/api/models/zoo/chat").document
    assert info["id"] == "zoo/chat"
    assert info["sha"] == tip(hub, "chat")[:40]
    sizes = {each["rfilename"]: each["size"] for each in info["siblings"]}
    assert sizes["config.json"] == len(original(hub, "chat", "config.json"))
    assert set(sizes) == {"config.json", "model.safetensors", "run.sh"}
    for revision in ("main", tip(hub, "chat"), tip(hub, "chat")[:40], "main~0"):
        found: Any = hub.ask(f"/api/models/zoo/chat/revision/{revision}").document
        assert found["sha"] == info["sha"]


def test_a_repository_is_a_model_too(hub: Served) -> None:
    for revision, branch in (("chat", "chat"), ("base", "base"), ("refs%2Fheads%2Fchat", "chat")):
        found: Any = hub.ask(f"/api/models/zoo/revision/{revision}").document
        assert found["sha"] == tip(hub, branch)[:40]
    names: Any = hub.ask("/api/models/zoo/refs").document
    assert {each["name"]: each["targetCommit"] for each in names["branches"]} == {
        name: tip(hub, name)[:40] for name in ("base", "chat")
    }
    own: Any = hub.ask("/api/models/zoo/chat/refs").document
    assert [each["name"] for each in own["branches"]] == ["main"]


def test_small_files_have_the_ids_that_git_gives_them(hub: Served) -> None:
    content = original(hub, "base", "config.json")
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    told = hub.ask("/zoo/base/resolve/main/config.json", "HEAD")
    assert told.headers["etag"] == told.headers["x-linked-etag"] == f'"{blob}"'
    assert told.headers["x-linked-size"] == str(len(content))
    assert told.headers["x-repo-commit"] == tip(hub, "base")[:40]
    listed = hub.ask("/api/models/zoo/base/tree/main").document
    assert {each["path"]: each["oid"] for each in listed}["config.json"] == blob


def test_files_come_whole_and_by_ranges(hub: Served) -> None:
    place, content = (
        "/zoo/chat/resolve/main/model.safetensors",
        original(hub, "chat", "model.safetensors"),
    )
    size = len(content)
    whole = hub.ask(place)
    assert (whole.status, whole.body) == (200, content)
    for wanted, first, end in (
        ("bytes=0-7", 0, 8),
        ("bytes=5000-9999", 5000, 10_000),
        (f"bytes={size - 1}-", size - 1, size),
        ("bytes=-10", size - 10, size),
        (f"bytes=10-{10**17}", 10, size),
    ):
        part = hub.ask(place, headers={"Range": wanted})
        assert (part.status, part.body) == (206, content[first:end]), wanted
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    etag = whole.headers["etag"]
    assert hub.ask(place, headers={"Range": "bytes=0-1", "If-Range": '"else"'}).status == 200
    assert hub.ask(place, headers={"Range": "bytes=0-1", "If-Range": etag}).status == 206
    unchanged = hub.ask(place, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (unchanged.status, unchanged.body) == (304, b"")


@pytest.mark.parametrize(
    "wanted",
    ["bytes=9-5", "bytes=99999999999-", "bytes=0-1,5-6", "bytes=", "bytes=-0", "bytes=a-b"],
)
def test_absurd_ranges_are_refused(hub: Served, wanted: str) -> None:
    reply = hub.ask("/zoo/chat/resolve/main/config.json", headers={"Range": wanted})
    size = len(original(hub, "chat", "config.json"))
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{size}")
    assert "error" in json.loads(reply.body)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/zoo/none", 404, "RepoNotFound"),
        ("/api/models/none/base", 404, "RepoNotFound"),
        ("/api/models/..%2F..%2Fetc/passwd", 404, "RepoNotFound"),
        ("/api/models/zoo/%00", 400, None),
        ("/api/models/zoo/%ff", 400, None),
        ("/api/models/zoo/a--b", 404, "RepoNotFound"),
        ("/api/models/zoo/base/revision/none", 404, "RevisionNotFound"),
        ("/api/models/zoo/base/revision/..%2F..%2FHEAD", 404, "RevisionNotFound"),
        ("/api/models/zoo/base/revision/chat", 404, "RevisionNotFound"),
        ("/api/models/zoo/revision/main@%7Bnever%7D", 404, "RevisionNotFound"),
        ("/api/models/zoo/base/tree/main/none", 404, "EntryNotFound"),
        ("/zoo/base/resolve/main/none", 404, "EntryNotFound"),
        ("/zoo/base/resolve/main/..%2F..%2Fconfig", 404, "EntryNotFound"),
        ("/zoo/base/resolve/main/../../config", 404, "EntryNotFound"),
        ("/zoo/base/resolve/0123456789abcdef/config.json", 404, "RevisionNotFound"),
        ("/zoo/none/resolve/main/config.json", 404, "RepoNotFound"),
        ("/api/models/zoo/base/xet-read-token/main", 404, None),
        ("/api/nothing", 404, None),
    ],
)
def test_what_is_not_there_is_told_in_the_hubs_way(
    hub: Served, path: str, status: int, code: str | None
) -> None:
    reply = hub.ask(path)
    assert (reply.status, reply.headers.get("x-error-code")) == (status, code)
    assert json.loads(reply.body)["error"]
    assert reply.headers["x-error-message"].isascii()


def test_paths_that_are_named(hub: Served) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    place = "/api/models/zoo/base/paths-info/main"
    found: Any = hub.ask(place, "POST", form, b"paths=config.json&paths=none&expand=False").document
    assert [each["path"] for each in found] == ["config.json"]
    found = hub.ask(place, "POST", body=b'{"paths": ["run.sh"]}').document
    assert [each["path"] for each in found] == ["run.sh"]
    for body in (b"\xff", b'{"paths": [1]}', b"{", b'{"paths": {}}'):
        assert hub.ask(place, "POST", body=body).status == 400


def test_history_in_pages(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "zoo", who="Ada") as repository:
        for number in range(3):
            model = write_model(tmp_path / "model", tensors(changed=number))
            (model / "sub" / "deep").mkdir(parents=True, exist_ok=True)
            (model / "sub" / "deep" / "note.txt").write_text(str(number))
            repository.commit(model, branch="chat", message=f"Step {number}\n\nmore")
        repository.tag("v1", "chat~1")
    with serving(tmp_path / "zoo") as hub:
        first = hub.ask("/api/models/zoo/chat/commits/main?limit=2")
        assert [each["title"] for each in first.document] == ["Step 2", "Step 1"]
        second = hub.ask(first.headers["link"].partition(">")[0].removeprefix("<" + hub.url))
        assert [(each["title"], each["message"]) for each in second.document] == [
            ("Step 0", "more")
        ]
        for revision, content in (
            ("v1", b"1"),
            ("main~2", b"0"),
            ("main%5E", b"1"),
            ("main", b"2"),
        ):
            reply = hub.ask(f"/zoo/chat/resolve/{revision}/sub/deep/note.txt")
            assert reply.body == content
        listed = hub.ask("/api/models/zoo/chat/tree/main").document
        assert {(each["type"], each["path"]) for each in listed} >= {("directory", "sub")}
        listed = hub.ask("/api/models/zoo/chat/tree/main/sub%2Fdeep?expand=true").document
        assert [(each["path"], each["lastCommit"]["title"]) for each in listed] == [
            ("sub/deep/note.txt", "Step 2")
        ]
        listed = hub.ask("/api/models/zoo/chat/tree/main?recursive=True").document
        assert [each["path"] for each in listed if each["path"].startswith("sub")] == [
            "sub",
            "sub/deep",
            "sub/deep/note.txt",
        ]


READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"


def test_tokens_and_several_repositories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("one", "two"):
        with Repository.init(root / name, who="Ada") as repository:
            repository.commit(write_model(tmp_path / name), branch="base")
    tokens = {"MP_SERVE_TOKENS": f"read:{READ},write:{WRITE}"}
    with serving(root, "--root", root, environment=tokens) as served:
        bearer = {"Authorization": f"Bearer {READ}"}
        refused = served.ask("/api/models")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        wrong = served.ask("/api/models", headers={"Authorization": f"Bearer {READ}x"})
        assert wrong.headers["x-error-message"] == "Invalid credentials in Authorization header"
        found: Any = served.ask("/api/models", headers=bearer).document
        assert [each["id"] for each in found] == ["one/base", "two/base"]
        me: Any = served.ask("/api/whoami-v2", headers=bearer).document
        assert me["auth"]["accessToken"]["role"] == "read"
        reply = served.ask("/two/base/resolve/main/run.sh", headers=bearer)
        assert reply.body == b"#!/bin/sh\n"
        assert served.ask("/one/v1/values?prefix=refs/", headers=bearer).status == 200
        assert served.ask("/one/v1/values?prefix=refs/").status == 401
        page = {**bearer, "Origin": "http://elsewhere"}
        assert served.ask("/api/models", headers=page).status == 403
        with Repository.init(root / "three", who="Ada") as repository:
            repository.commit(write_model(tmp_path / "three"), branch="late")
        assert served.ask("/api/models/three/late", headers=bearer).status == 200
