"""`mp push`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

PUSH = {
    *("remote", "url", "refs", "bytes_sent", "packs_sent", "commits", "objects", "blocks"),
    *("blocks_held", "raw_bytes", "seconds"),
}


@pytest.fixture
def other(committed: Path, tmp_path: Path, mp: Mp) -> Path:
    """An empty repository that is the remote `origin` of the current one."""
    mp("init", tmp_path / "other")
    mp("remote", "add", "origin", tmp_path / "other")
    return tmp_path / "other"


def test_push_and_push_again(other: Path, mp: Mp, process: Mp) -> None:
    tip = mp("log", "--json").document[0]["commit"]
    first = mp("push", "--json").document
    assert first.keys() >= PUSH
    assert first["remote"] == "origin"
    assert first["url"] == str(other)
    assert first["refs"] == [
        {"name": "refs/heads/main", "old": None, "new": tip, "move": "created"}
    ]
    assert first["bytes_sent"] > 0
    assert first["packs_sent"] > 1
    again = mp("push", "--json").document
    assert again["refs"] == [
        {"name": "refs/heads/main", "old": tip, "new": tip, "move": "unchanged"}
    ]
    assert (again["bytes_sent"], again["packs_sent"]) == (0, 0)
    assert "Everything is there already" in mp("push").out
    assert process("-C", other, "log", "--json").document[0]["commit"] == tip
    assert process("-C", other, "fsck", "--read-data", "--json").document["ok"]
    assert mp("log", "origin/main", "--json").document[0]["commit"] == tip


def test_what_a_person_sees(other: Path, tmp_path: Path, mp: Mp) -> None:
    mp("tag", "v1")
    out = mp("push", "origin", "main", "v1").out
    assert f"To {other}" in out
    assert "created" in out
    assert "tag v1" in out
    assert "Sent " in out
    assert mp("push", "-q", "--all").out == ""
    mp("commit", write_model(tmp_path / "tuned", tensors(changed=0.5)), "-m", "tuned")
    out = mp("push").out
    assert " -> " in out
    assert "fast-forward" in out
    assert "1 commit" in out


def test_refused_with_a_way_out(other: Path, tmp_path: Path, mp: Mp, process: Mp) -> None:
    mp("push")
    mp("commit", write_model(tmp_path / "two", tensors(changed=0.5)), "-m", "two")
    mp("push")
    mp("reset", "main~1")
    mp("commit", write_model(tmp_path / "three", tensors(changed=0.9)), "-m", "three")
    refused = mp("push", "--json", expect=14).document["error"]
    assert refused["kind"] == "ref_moved"
    assert "mp fetch" in refused["hint"]
    assert mp("push", "--force-with-lease", "--json").document["refs"][0]["move"] == "forced"
    assert process("-C", other, "log", "--json").document[0]["message"].strip() == "three"


def test_deleted_there(other: Path, tmp_path: Path, mp: Mp, process: Mp) -> None:
    mp("branch", "old")
    mp("push", "--all")
    assert (Path(".mergepipe") / "refs/remotes/origin/old").exists()
    assert "removed" in mp("push", "origin", "--delete", "old").out
    assert [each["name"] for each in process("-C", other, "branch", "--json").document] == ["main"]
    assert not (Path(".mergepipe") / "refs/remotes/origin/old").exists()
    assert "no branch" in mp("push", "origin", "--delete", "old", expect=1).err
    assert "which branch or tag" in mp("push", "--delete", expect=2).err


def test_to_a_url(other: Path, tmp_path: Path, mp: Mp) -> None:
    pushed = mp("push", f"file://{other}", "main:shared/main", "--json").document
    assert pushed["refs"][0]["name"] == "refs/heads/shared/main"
    assert not (Path(".mergepipe") / "refs/remotes").exists()


def test_nowhere_to_push(committed: Path, tmp_path: Path, mp: Mp, process: Mp) -> None:
    assert "mp remote add" in mp("push", expect=2).err
    assert "no repository" in mp("push", tmp_path / "nothing", expect=10).err
    mp("init", tmp_path / "empty")
    mp("init", tmp_path / "target")
    assert (
        "no commit yet"
        in process("-C", tmp_path / "empty", "push", tmp_path / "target", expect=2).err
    )


def test_a_release_is_the_model_with_its_manifest_and_nothing_else(
    merging: Path, mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = ["merge", "math", "code", "--base", "base", "-b", "prod"]
    mp(*merge)
    mp("init", tmp_path / "serving")
    first = mp("push", tmp_path / "serving", "prod", "--release", "--json").document
    raw_bytes = mp("du", "prod", "--json").document["raw_bytes"]
    assert first["commits"] == 1
    assert first["bytes_sent"] < 1.2 * raw_bytes
    mp("remote", "add", "serving", tmp_path / "serving")
    mp("fetch", "serving")
    again = mp("push", "serving", "prod", "--release", "--json").document
    assert again["refs"][0]["move"] == "unchanged"
    mp(*merge, "--density", "0.5", "--method", "ties")
    second = mp("push", "serving", "prod", "--release", "--json").document
    assert second["refs"][0]["move"] == "fast-forward"
    mp("checkout", "prod", "--to", tmp_path / "expected")
    manifest = mp("show", "prod", "--json").document["manifest"]
    assert "which one gets" in mp("push", "serving", "prod~1", "--release", expect=2).err
    assert "single revisions" in mp("push", "serving", "--all", "--release", expect=2).err

    monkeypatch.chdir(tmp_path / "serving")
    mp("checkout", "prod", "--to", tmp_path / "served")
    for path in (tmp_path / "expected").iterdir():
        assert (tmp_path / "served" / path.name).read_bytes() == path.read_bytes()
    assert mp("show", "prod", "--json").document["manifest"] == manifest
    assert len(mp("log", "prod", "--json").document) == 2
    assert "no problems" in mp("fsck", "--read-data").out
    mp("gc", "--prune=now")
    assert "3 of the 3 merged models are not here" in mp("replay", "prod", expect=1).err
    assert "3 of the 3 merged models are not here" in mp("explain", "prod", expect=1).err
    assert "merged models are not here" in mp("report", "prod", "--json", expect=1).out


def test_a_release_goes_to_one_branch(merging: Path, mp: Mp, tmp_path: Path) -> None:
    mp("init", tmp_path / "serving")
    to_tag = mp("push", tmp_path / "serving", "math:refs/tags/v1", "--release", expect=2)
    assert "goes to a branch" in to_tag.err
    twice = ("math:prod", "code:prod")
    assert "one release" in mp("push", tmp_path / "serving", *twice, "--release", expect=2).err
    mp("push", tmp_path / "serving", "+math:prod", "--release")
