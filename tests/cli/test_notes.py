"""Notes on commits: beside the id, listed, sorted by, and carried along by push and fetch."""

from pathlib import Path

import pytest

from mergepipe import Repository
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model


@pytest.fixture
def days(repository: Path, tmp_path: Path, mp: Mp) -> list[str]:
    """Three commits on main, oldest first."""
    identities = []
    for day in range(3):
        mp("commit", write_model(tmp_path / f"day{day}", tensors(day)), "-m", f"Day {day}")
        identities.append(mp("show", "--json").document["commit"])
    return identities


def test_said_and_shown(days: list[str], mp: Mp) -> None:
    for revision, loss in (("main", "3.5"), ("main~1", "3.25"), ("main~2", "10")):
        mp("note", revision, f"loss={loss}", "verdict=kept")
    assert [each["commit"] for each in mp("log", "--json").document] == days[::-1]
    assert mp("note", "main", "--json").document["notes"]["loss"]["value"] == 3.5
    assert mp("show", "--json").document["notes"] == {"loss": 3.5, "verdict": "kept"}
    assert "loss=3.5, verdict=kept" in mp("show").out
    assert "Notes:  loss=3.5, verdict=kept" in mp("log").out
    column = [line.split()[1] for line in mp("log", "--metric", "loss").out.splitlines()]
    assert column == ["3.5", "3.25", "10"]
    mp("note", "main~2", "verdict=")
    lines = mp("log", "--metric", "loss", "--metric", "verdict").out.splitlines()
    assert lines[2].split()[1:3] == ["10", "-"]
    best = mp("log", "--sort", "loss", "--json").document
    assert [each["notes"]["loss"] for each in best] == [3.25, 3.5, 10]
    assert mp("log", "--sort", "-loss", "-n", "1", "--json").document[0]["commit"] == days[0]
    with Repository.open() as repository:
        repository.note("main", loss=1.5)
        assert repository.notes()["loss"].number == 1.5


@pytest.mark.parametrize("text", ["loss", "1x=2", "a b=1", "x=" + 1001 * "y", "x=a\nb"])
def test_what_is_no_note(days: list[str], mp: Mp, text: str) -> None:
    mp("note", "main", text, expect=2)
    assert mp("note", "main", "--json").document["notes"] == {}


def test_carried_along_and_joined(
    days: list[str], repository: Path, mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    mp("init", there)
    mp("remote", "add", "origin", there)
    mp("note", "main", "loss=3.5")
    mp("push", "origin", "main")
    mp("clone", there, tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    assert mp("show", "--json").document["notes"] == {"loss": 3.5}
    mp("note", "main", "verdict=kept", "loss=3.4")
    assert mp("push", "--json").document["notes"] == 1
    monkeypatch.chdir(repository)
    mp("note", "main", "seconds=12")
    mp("push", "origin", "main")
    assert mp("fetch", "origin", "--json").document["notes"] == 1
    noted = {"loss": 3.4, "seconds": 12, "verdict": "kept"}
    assert mp("show", "--json").document["notes"] == noted
    with Repository.open(there) as other:
        assert {key: each.shown for key, each in other.notes("main").items()} == noted
    assert mp("push", "origin", "main", "--json").document["notes"] == 0


def test_notes_go_with_their_commit(days: list[str], mp: Mp) -> None:
    mp("note", "main", "loss=3")
    mp("note", "main~1", "loss=4")
    mp("reset", "main~1")
    mp("gc", "--no-reflog", "--prune=now")
    with Repository.open() as repository:
        assert list(repository.store.list("notes/")) == [f"notes/{days[1]}"]
