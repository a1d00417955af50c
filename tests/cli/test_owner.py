"""A repository of another user is read; it is written once the user said so."""

import os
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import UnsafeRepository
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
OTHER = 54001


@pytest.fixture
def others(committed: Path) -> Path:
    os.chown(committed / ".mergepipe", OTHER, OTHER)
    return committed


def test_reading_and_no_writing(others: Path, tmp_path: Path, mp: Mp) -> None:
    before = {path: path.stat().st_mtime_ns for path in others.rglob("*")}
    mp("log")
    mp("fsck", "--read-data")
    mp("checkout", "main", "--to", tmp_path / "out")
    other = write_model(tmp_path / "other", tensors(1))
    for words in (["commit", other], ["tag", "v1"], ["gc"], ["config", "core.threads", "1"]):
        said = mp(*words, "--json", expect=1).document["error"]
        assert said["kind"] == "unsafe_repository"
        assert f"(number {OTHER})" in said["message"]
        assert f"MP_SAFE_DIRECTORY={others}" in said["hint"]
    index = others / ".mergepipe" / "index"
    after = {path: path.stat().st_mtime_ns for path in others.rglob("*")}
    # What LMDB and locks keep of who reads.
    kept = {index, *index.iterdir(), index.with_name("store.lock")}
    assert {path for path in after if after[path] != before.get(path)} <= kept


def test_ways_to_say_so(
    others: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as told:
        told.setenv("MP_SAFE_DIRECTORY", f"/nowhere:{others}")
        mp("tag", "named")
    with monkeypatch.context() as told:
        told.setenv("SUDO_UID", str(OTHER))
        mp("tag", "as-sudo")
    with monkeypatch.context() as told:
        told.setenv("MP_DIR", str(others / ".mergepipe"))
        mp("tag", "named-itself")
    mp("tag", "not-yet", expect=1)
    settings = Path(os.environ["XDG_CONFIG_HOME"]) / "mergepipe"
    settings.mkdir(parents=True)
    (settings / "safe").write_text(f"{others}\n")
    mp("tag", "in-the-settings")


def test_from_python_too(others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.open(others) as repo:
        assert repo.resolve("main")
        assert list(repo.log())
        for change in (lambda: repo.tag("v1"), repo.gc, repo.undo):
            with pytest.raises(UnsafeRepository, match="belongs to another user"):
                change()
        assert not list((others / ".mergepipe/leases").iterdir())
    with Repository.open(others, any_owner=True) as repo:
        repo.tag("v1")
    monkeypatch.setenv("MP_SAFE_DIRECTORY", str(others))
    with Repository.open(others) as repo:
        repo.tag("v2")


def test_as_a_remote_by_path(
    others: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("clone", others, tmp_path / "mine")
    model = write_model(tmp_path / "m", tensors(3))
    mp("-C", tmp_path / "mine", "commit", model, "-b", "new", "-m", "New")
    said = mp("-C", tmp_path / "mine", "push", "origin", "new", expect=1).err
    assert "belongs to another user" in said
    incoming = others / ".mergepipe/incoming"
    assert not incoming.exists() or not list(incoming.glob("*.pack"))
    assert not (others / ".mergepipe/refs/heads/new").exists()
    monkeypatch.setenv("MP_SAFE_DIRECTORY", str(others))
    mp("-C", tmp_path / "mine", "push", "origin", "new")
