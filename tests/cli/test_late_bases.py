"""What a model was trained from, said after it was committed: budgets read it all the same."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Mp

PLAN = ("math", "late", "--base", "base", "--method", "task_arithmetic", "--budget", "raw:20%")


@pytest.fixture
def late(family: dict[str, Path], tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An expert that was stored without its base, as fast as could be, and one that leans on it."""
    mp("init", "repository", "--block-size", "4KiB")
    monkeypatch.chdir(tmp_path / "repository")
    mp("commit", family["base"], "-b", "base")
    mp("config", "store.codec", "raw")
    mp("commit", family["code"], "-b", "late")
    mp("config", "--unset", "store.codec")
    mp("commit", family["math"], "-b", "math", "--base", "base")
    return family["code"]


def _kept(planned: dict[str, Any]) -> list[float]:
    return [expert["energy_kept"] for expert in planned["experts"]]


def _told(planned: dict[str, Any]) -> list[str]:
    return [one["expert"] for one in planned["warnings"] if one["kind"] == "no_layers"]


def test_analyze_lets_budgets_read_it(late: Path, mp: Mp) -> None:
    before = mp("plan", *PLAN, "--json").document
    assert _told(before) == ["late"]
    assert "mp analyze" in mp("plan", *PLAN).out
    exact = mp("merge", *PLAN[:-2], "-b", "exact", "--json").document["snapshot"]
    found = mp("analyze", "late", "--base", "base", "--json").document
    assert found["layered_blocks"] > 0
    after = mp("plan", *PLAN, "--json").document
    assert _told(after) == []
    assert min(_kept(after)) > 0.6 > min(_kept(before))
    mp("merge", *PLAN, "-b", "out")
    assert mp("analyze", "late", "--base", "base", "--json").document["layered_blocks"] == 0
    assert mp("fsck", "--read-data", "--json").document["ok"]
    assert mp("merge", *PLAN[:-2], "-b", "again", "--json").document["snapshot"] == exact
    mp("gc", "--prune=now")
    mp("checkout", "late", "--to", "out")
    weights = "model.safetensors"
    assert (Path("out") / weights).read_bytes() == (late / weights).read_bytes()


def test_so_does_a_commit_that_says_it(late: Path, mp: Mp) -> None:
    assert not mp("commit", late, "-b", "late", "--base", "base", "--json").document["unchanged"]
    planned = mp("plan", *PLAN, "--json").document
    assert _told(planned) == []
    assert min(_kept(planned)) > 0.6
