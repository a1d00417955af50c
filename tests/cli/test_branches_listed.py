"""`mp branch --list` and `-n`: of very many branches, those that are meant are read."""

import json
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.cli.history_text import decorations
from mergepipe.cli.main import main
from mergepipe.errors import Corruption, RevisionNotFound
from mergepipe.repository import revisions
from mergepipe.repository.refnames import HEADS
from tests.repository.checkpoints import WHO


@pytest.fixture
def crowd(tmp_path: Path) -> Repository:
    """Branches in folders, one of them damaged."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "own.bin").write_bytes(b"x" * 100)
    with Repository.init(tmp_path / "repo", who=WHO) as repo:
        for name in ("main", "team/a", "team/ab", "team/deep/a", "teams/a"):
            repo.commit(model, branch=name, message="m")
        damaged = repo.directory / "refs/heads/other/damaged"
        damaged.parent.mkdir()
        damaged.write_text("nonsense\n")
        return repo


def listed(capsys: pytest.CaptureFixture[str], repo: Repository, *arguments: str) -> list[str]:
    root = str(repo.directory.parent)
    assert main(["-C", root, "branch", *arguments, "--json"]) == 0
    return [each["name"] for each in json.loads(capsys.readouterr().out)]


def test_what_a_pattern_means_is_listed(
    crowd: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys, crowd, "-l", "team/*") == ["team/a", "team/ab", "team/deep/a"]
    assert listed(capsys, crowd, "-l", "team*/a") == ["team/a", "team/deep/a", "teams/a"]
    assert listed(capsys, crowd, "-l", "team/?") == ["team/a"]
    assert listed(capsys, crowd, "-l", "main") == ["main"]
    assert listed(capsys, crowd, "-l", "nobody/*") == []
    assert listed(capsys, crowd, "-n", "1") == ["main"]
    with pytest.raises(Corruption):
        list(crowd.refs.matching(HEADS, "other/*"))


def test_nobody_waits_for_a_crowd(crowd: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergepipe.cli.history_text._MOST_NAMES", 2)
    monkeypatch.setattr(revisions, "_MOST_COMPARED", 2)
    head = crowd.refs.head().commit
    assert head is not None
    assert decorations(crowd.refs) == {head: ["HEAD -> main"]}
    with pytest.raises(RevisionNotFound, match="mian"):
        crowd.resolve("mian")
