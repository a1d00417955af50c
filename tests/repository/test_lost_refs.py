"""Refs, logs and notes that are lost or damaged: a way out is told, and nothing else fails."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.errors import DamagedConfig, RevisionNotFound
from mergepipe.repository.problems import NoteKind, ProblemKind

from .checkpoints import new_repository, write_model


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        for number in range(2):
            w = np.full((40, 20), number, np.float32)
            opened.commit(
                write_model(tmp_path / str(number), {"w": w}), message=f"version {number}"
            )
        yield opened


def test_the_branch_of_head_comes_back(repo: Repository) -> None:
    tip = repo.resolve("main")
    (repo.directory / "refs/heads/main").unlink()
    with pytest.raises(RevisionNotFound) as lost:
        repo.resolve("HEAD")
    assert lost.value.hint is not None
    assert "--repair" in lost.value.hint
    assert [problem.kind for problem in repo.fsck().problems] == [ProblemKind.REF]
    assert repo.fsck(repair=True).ok
    assert repo.resolve("HEAD") == tip


def test_other_lost_branches_and_tags_are_offered(repo: Repository) -> None:
    tip = repo.branch("other")
    (repo.directory / "refs/heads/other").unlink()
    report = repo.fsck()
    assert report.ok
    [note] = [note for note in report.notes if note.kind is NoteKind.LOST]
    assert f"mp branch other {tip.hex()[:12]}" in note.detail
    repo.branch("other", tip.hex()[:12])
    assert not [note for note in repo.fsck().notes if note.kind is NoteKind.LOST]


def test_commits_that_nothing_names_are_listed(repo: Repository) -> None:
    tip = repo.resolve("main")
    repo.reset("main~1")
    for log in (repo.directory / "logs").rglob("*"):
        if log.is_file():
            log.unlink()
    [note] = [note for note in repo.fsck().notes if note.kind is NoteKind.DANGLING]
    assert note.id == tip.hex()
    assert "version 1" in note.detail


def test_a_damaged_log_costs_its_damaged_lines(repo: Repository) -> None:
    log = repo.directory / "logs/refs/heads/main"
    first, second = log.read_bytes().splitlines(keepends=True)
    lost = b"\xff" + first[1:]
    log.write_bytes(lost + second)
    assert len(repo.reflog("main")) == 1
    assert repo.damaged_log("main") == 1
    repo.gc(grace_s=0)
    assert [problem.kind for problem in repo.fsck().problems] == [ProblemKind.REFLOG]
    report = repo.fsck(repair=True)
    assert report.ok
    assert repo.damaged_log("main") is None
    assert log.read_bytes() == second
    [kept] = (repo.directory / "quarantine").glob("*.log")
    assert kept.read_bytes() == lost + second


@pytest.mark.parametrize(
    "note", [b"", b"{", b"\xff\xfe", b'{"version":1,"snapshot":"zz","files":{}}']
)
def test_a_damaged_note_of_the_worktree_costs_reading(repo: Repository, note: bytes) -> None:
    repo.checkout("main")
    (repo.directory / "worktree").write_bytes(note)
    assert repo.status() == ()
    (repo.directory / "worktree").write_bytes(
        b'{"version":1,"snapshot":"' + b"1" * 64 + b'","files":{}}'
    )
    assert repo.status() == ()
    (repo.directory / "worktree").write_bytes(
        b'{"version":1,"snapshot":"' + b"1" * 64 + b'","files":{}}'
    )
    repo.checkout("main")


@pytest.mark.parametrize("text", [b"x = [[[", b"\xff\xfe[store]"])
def test_with_a_damaged_config_models_can_still_be_read(
    repo: Repository, tmp_path: Path, text: bytes
) -> None:
    (repo.directory / "config.toml").write_bytes(text)
    with Repository.open(tmp_path / "repo") as again:
        assert again.config_damage is not None
        again.checkout("main", to=tmp_path / "out")
        expected = (tmp_path / "1/model.safetensors").read_bytes()
        assert (tmp_path / "out/model.safetensors").read_bytes() == expected
        assert again.fsck().ok
        with pytest.raises(DamagedConfig):
            again.commit(tmp_path / "0", message="again")
