"""What is said of models that were pruned, and what may be done with their place in history."""

from pathlib import Path

import pytest

from mergepipe import Repository
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

START = 1_790_000_000


@pytest.fixture
def line(
    repository: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    """Four unlike models on `main`; ids, oldest first. The files are in `daysN`."""
    identities = []
    for day in range(4):
        path = write_model(tmp_path / f"day{day}", tensors(day))
        _at(day, monkeypatch)
        mp("commit", path, "-m", f"Day {day}")
        identities.append(mp("show", "main", "--json").document["commit"])
    return tuple(identities)


@pytest.fixture
def pruned(line: tuple[str, ...], mp: Mp) -> tuple[str, ...]:
    """The same, of which the last model is kept."""
    mp("prune", "--keep-last", "1")
    return line


def _at(day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + day * 86400} +0000")


def test_whatever_asks_for_one_is_told_so(pruned: tuple[str, ...], mp: Mp, tmp_path: Path) -> None:
    for command in (
        ("verify", tmp_path / "day2", "main~1"),
        ("du", "main~1"),
        ("analyze", "main~1"),
        ("analyze", "main", "--base", "main~2"),
        ("check", "main", "--against", "main~1"),
        ("revert", "main"),
        ("rollback", "main", "main~2"),
        ("report", "main~1", "--json"),
    ):
        assert "was pruned on" in str(mp(*command, expect=1)), command
    # Storage's choice of what to lean on says nothing of likeness.
    assert mp("check", "main", "--json").document["against"] is None


def test_a_ref_at_one_is_no_fault(pruned: tuple[str, ...], mp: Mp, tmp_path: Path) -> None:
    mp("branch", "old", "main~2")
    assert [each["rev"] for each in mp("du", "--json").document["models"]] == ["main"]
    mp("commit", write_model(tmp_path / "new", tensors(7)), "-b", "new")
    mp("switch", "old")
    assert "was pruned on" in mp("commit", "--amend", "-m", "Another", expect=1).err
    mp("commit", tmp_path / "day1", "-m", "The same files")
    mp("gc", "--prune=now")
    mp("verify", tmp_path / "day1", "old")
    assert "no problems" in mp("fsck", "--read-data").out


def test_the_very_same_commit_is_kept_again(
    pruned: tuple[str, ...], mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(0, monkeypatch)
    mp("commit", tmp_path / "day0", "-b", "again", "-m", "Day 0")
    assert mp("show", "again", "--json").document["commit"] == pruned[0]
    mp("gc", "--prune=now", "--no-reflog")
    mp("checkout", "again", "--to", tmp_path / "out")
    assert "no problems" in mp("fsck", "--read-data").out


def test_rolling_back_to_one_whose_model_another_holds(
    line: tuple[str, ...], mp: Mp, tmp_path: Path
) -> None:
    mp("commit", tmp_path / "day1", "-b", "other")
    mp("prune", "main", "--keep-last", "1")
    mp("rollback", "main", line[1])
    mp("verify", tmp_path / "day1", "main")
    mp("gc", "--prune=now")
    assert "no problems" in mp("fsck", "--read-data").out


def test_history_that_left_and_came_back_is_kept(
    line: tuple[str, ...], mp: Mp, tmp_path: Path
) -> None:
    mp("init", tmp_path / "there")
    mp("remote", "add", "origin", tmp_path / "there")
    mp("push", "origin", "main")
    mp("prune", "--keep-last", "1")
    mp("commit", write_model(tmp_path / "new", tensors(7)), "-b", "fresh")
    mp("switch", "fresh")
    mp("branch", "-d", "main", "--force")
    mp("remote", "rm", "origin")
    mp("gc", "--prune=now", "--no-reflog")
    mp("remote", "add", "origin", tmp_path / "there")
    mp("fetch")
    mp("gc", "--prune=now")
    mp("verify", tmp_path / "day0", line[0])
    assert "no problems" in mp("fsck", "--read-data").out


def test_a_damaged_line_is_told_and_left_out(
    pruned: tuple[str, ...], repository: Path, mp: Mp, tmp_path: Path
) -> None:
    note = repository / ".mergepipe/pruned"
    lines = note.read_bytes().splitlines(keepends=True)
    note.write_bytes(b"".join([b"x" + lines[0], *lines[1:]]))
    mp("checkout", "main", "--to", tmp_path / "out")
    assert "mp fsck --repair" in mp("gc", "--prune=now", expect=12).err
    assert "line 1 is damaged" in mp("fsck", expect=12).out
    told = mp("fsck", "--repair", expect=12).out  # a model is missed: nobody knows of which
    assert "left damaged lines out" in told
    mp("prune", "--keep-last", "1")
    assert "no problems" in mp("fsck", "--read-data").out
    assert note.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("notices", ["fetch", "reading"])
def test_a_lazy_clone_follows_what_its_remote_lets_go_of(
    line: tuple[str, ...],
    repository: Path,
    mp: Mp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notices: str,
) -> None:
    mp("clone", "--lazy", "--no-checkout", repository, tmp_path / "lazy")
    mp("prune", "--keep-last", "1")
    monkeypatch.chdir(tmp_path / "lazy")
    if notices == "fetch":
        mp("fetch")
    else:
        gone = mp("checkout", line[1], "--to", tmp_path / "gone", expect=1).err
        assert "was pruned on the remote 'origin'" in gone
        mp("fsck", "--repair")
    assert "was pruned on" in mp("checkout", "main~2", "--to", tmp_path / "gone", expect=1).err
    mp("gc", "--prune=now")
    mp("checkout", "main", "--to", tmp_path / "out")
    mp("verify", tmp_path / "out", "main")
    assert "no problems" in mp("fsck").out
    with Repository.open(".") as lazy:
        assert not lazy.has_model(lazy.resolve(line[0]))
