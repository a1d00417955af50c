"""Plans that are approved before they are carried out: as files, and refused where inputs moved."""

import json
import pickle
from pathlib import Path

import pytest

from mergepipe.api import Repository
from tests.cli.conftest import Mp
from tests.cli.families import TIES

ASK = [*TIES, "--budget", "40%", "--max-share", "60%"]


@pytest.fixture
def plan_file(merging: Path, mp: Mp, tmp_path: Path) -> Path:
    mp("plan", *ASK, "--out", tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_a_plan_goes_through_a_file(
    merging: Path, mp: Mp, plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = mp("merge", "--plan", plan_file, "-b", "merged", "--json").document
    assert (here["budget"], here["max_share"]) == ("40%", "60%")
    mp("clone", merging, tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    # What the remote has under a name counts where nothing here is called so.
    there = mp("merge", "--plan", plan_file, "--fail-if-moved", "-b", "m", "--json").document
    assert there["plan"] == here["plan"]
    assert there["snapshot"] == here["snapshot"]
    assert (there["budget"], there["budget_bytes"]) == ("40%", here["budget_bytes"])


def test_a_changed_file_is_no_plan(merging: Path, mp: Mp, plan_file: Path) -> None:
    document = json.loads(plan_file.read_text())
    for change, code in (
        ({"plan": "0" * 64}, 12),
        ({"object": "AAAA"}, 12),
        ({"object": "no base64!"}, 12),
        ({"format": "a letter"}, 12),
        ({"version": 2}, 1),
    ):
        plan_file.write_text(json.dumps({**document, **change}))
        mp("merge", "--plan", plan_file, "-b", "merged", expect=code)
    plan_file.write_text("{")
    assert "no plan" in mp("merge", "--plan", plan_file, "-b", "merged", expect=12).err
    assert "merged" not in mp("branch").out


def test_an_empty_repository_says_what_is_missing(
    merging: Path, mp: Mp, plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("init", tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    assert "not here" in mp("merge", "--plan", plan_file, "-b", "m", expect=1).err


def test_what_moved_since_a_plan_was_approved_is_refused(merging: Path, mp: Mp) -> None:
    plan = mp("plan", *ASK, "--json").document["plan"]
    mp("merge", "--plan", plan, "--fail-if-moved", "-b", "merged")
    mp("branch", "-f", "math", "code")
    error = mp("merge", "--plan", plan, "--fail-if-moved", "-b", "m", "--json", expect=14).document
    assert error["error"]["kind"] == "ref_moved"
    assert "'math' was" in error["error"]["message"]
    mp("merge", "--plan", plan, "-b", "m")
    mp("branch", "-d", "math", "--force")
    assert "gone" in mp("merge", "--plan", plan, "--fail-if-moved", "-b", "n", expect=14).err
    assert "--plan" in mp("merge", *TIES, "--fail-if-moved", expect=2).err


def test_files_that_changed_since_are_refused(merging: Path, mp: Mp, tmp_path: Path) -> None:
    source = sorted(merging.parent.rglob("math/model.safetensors"))[0].parent
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    plan = mp("plan", copy, "code", "--base", "base", "--json").document["plan"]
    mp("merge", "--plan", plan, "--fail-if-moved", "-b", "merged")
    (copy / "another.txt").write_text("more")
    assert "copy" in mp("merge", "--plan", plan, "--fail-if-moved", "-b", "m", expect=14).err


def test_a_plan_can_be_pickled(merging: Path) -> None:
    with Repository.open(merging) as repository:
        planned = repository.plan(experts=["math", "code"], base="base", budget="40%")
        again = pickle.loads(pickle.dumps(planned))
        assert again == planned
        assert again.plan == planned.plan
        result = repository.merge(again, branch="merged")
        assert "Budget: 40%" in repository.objects.commit(result.commit).message


def test_what_moved_at_the_remote_has_moved(
    merging: Path,
    family: dict[str, Path],
    mp: Mp,
    plan_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mp("clone", merging, tmp_path / "clone")
    mp("commit", family["math"], "-b", "code")
    monkeypatch.chdir(tmp_path / "clone")
    mp("fetch")
    approved = ("merge", "--plan", plan_file, "--fail-if-moved", "-b", "m")
    assert "'code' was" in mp(*approved, expect=14).err
