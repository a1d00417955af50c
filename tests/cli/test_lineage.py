"""Going back by going forward, moments, and what came from what."""

from pathlib import Path

import pytest

from tests.cli.conftest import Mp
from tests.cli.families import TIES
from tests.cli.models import tensors, write_model

DAY = 86400
START = 1_790_000_000


@pytest.fixture
def days(repository: Path, model: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three commits on `prod`, a day apart; their ids, oldest first."""
    mp("switch", "-c", "prod")
    identities = []
    for day in range(3):
        write_model(model, tensors(day))
        monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + day * DAY} +0000")
        mp("commit", model, "-m", f"Day {day}")
        identities.append(mp("show", "prod", "--json").document["commit"])
    monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + 2 * DAY + 60} +0000")
    return identities


def test_a_branch_goes_back_by_a_new_commit(days: list[str], mp: Mp, tmp_path: Path) -> None:
    document = mp("rollback", "prod", "prod~2", "--json").document
    assert document["restored"] == days[0]
    shown = mp("show", "prod", "--json").document
    assert shown["parents"] == [days[2]]
    assert shown["snapshot"] == mp("show", days[0], "--json").document["snapshot"]
    mp("checkout", "prod", "--to", tmp_path / "now")
    mp("checkout", days[0], "--to", tmp_path / "then")
    for path in (tmp_path / "then").iterdir():
        assert (tmp_path / "now" / path.name).read_bytes() == path.read_bytes()
    assert "holds the model" in mp("rollback", "prod", days[0], expect=1).err
    assert "is no branch" in mp("rollback", days[1][:12], "prod", expect=1).err
    assert "rollback: to prod~2" in mp("reflog", "prod").out


def test_files_follow_a_rollback_unless_they_were_changed(days: list[str], mp: Mp) -> None:
    mp("checkout", "prod")
    Path("config.json").write_text("{}")
    assert "differ" in mp("rollback", "prod", "prod~1", expect=1).err
    mp("checkout", "prod", "--force")
    mp("rollback", "prod", "prod~1", "-m", "A bad day")
    assert mp("status", "--json").document["changes"] == []
    assert mp("log", "-n", "1", "--oneline").out.rstrip().endswith("A bad day")


def test_another_branch_goes_back_without_touching_files(days: list[str], mp: Mp) -> None:
    mp("checkout", "prod")
    before = Path("model.safetensors").read_bytes()
    mp("switch", "-c", "work")
    mp("rollback", "prod", "prod~1")
    assert Path("model.safetensors").read_bytes() == before
    assert mp("show", "work", "--json").document["commit"] == days[2]


def test_a_merge_that_was_rolled_back_to_replays(merging: Path, mp: Mp) -> None:
    mp("merge", *TIES, "-b", "prod")
    mp("merge", "math", "code", "--base", "base", "--density", "0.2", "-b", "prod")
    mp("rollback", "prod", "prod~1")
    first, now = (mp("show", rev, "--json").document for rev in ("prod~2", "prod"))
    assert now["manifest"] == first["manifest"]
    mp("replay", "prod")
    assert "no problems" in mp("fsck", "--read-data").out


def test_pull_says_that_a_remote_went_back(
    days: list[str], mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path.cwd()
    mp("clone", there, tmp_path / "consumer", "-b", "prod")
    mp("reset", "prod~1")
    monkeypatch.chdir(tmp_path / "consumer")
    told = mp("pull").out
    assert "origin/prod went back to an earlier commit" in told
    assert "mp reset --hard origin/prod" in told
    assert "is at an earlier commit" in mp("pull").out
    mp("reset", "--hard", "origin/prod")
    assert "has it all already" in mp("pull").out
    monkeypatch.chdir(there)
    mp("rollback", "prod", "prod~1")
    monkeypatch.chdir(tmp_path / "consumer")
    assert mp("pull", "--json").document["new"] != days[1]  # what goes forward can be followed


def test_revisions_by_moment(days: list[str], mp: Mp) -> None:
    def at(when: str) -> str:
        return str(mp("show", f"prod@{{{when}}}", "--json").document["commit"])

    assert at("now") == days[2]
    assert at("yesterday") == days[1]
    assert at("2 days ago") == days[0]
    assert at("1.day.ago") == days[1]
    assert at(str(START + DAY)) == days[1]
    assert at("2026-09-22 00:00+00:00") == days[0]
    assert "begins later" in mp("show", "prod@{2 weeks ago}", expect=1).err
    assert "not a moment" in mp("show", "prod@{whenever}", expect=2).err
    assert mp("show", "prod@{2026-09-22 00:00+00:00}:run.sh").out == "#!/bin/sh\n"
    assert mp("show", "prod@{yesterday}~1", "--json").document["commit"] == days[0]


def test_the_log_of_some_commits(days: list[str], mp: Mp) -> None:
    def messages(*options: str) -> list[str]:
        return [each["message"].strip() for each in mp("log", *options, "--json").document]

    assert messages("--since", "25 hours ago") == ["Day 2", "Day 1"]
    assert messages("--until", "2 days ago") == ["Day 0"]
    assert messages("--since", "25 hours ago", "--until", "23 hours ago") == ["Day 1"]
    assert messages("--author", "ADA", "-n", "1") == ["Day 2"]
    assert messages("--author", "nobody") == []
    assert messages("--contains", days[1]) == ["Day 2", "Day 1"]
    assert "follows one branch" in mp("log", "--all", "--first-parent", expect=2).err


def test_what_came_from_a_model(merging: Path, mp: Mp) -> None:
    mp("merge", *TIES, "-b", "prod")
    merge = mp("show", "prod", "--json").document["commit"]
    found = {each["commit"]: each for each in mp("descendants", "math", "--json").document}
    assert set(found) == {merge}
    assert found[merge]["merge"]
    assert found[merge]["names"] == ["prod"]
    below = mp("descendants", "base", "--json").document
    assert {name for each in below for name in each["names"]} == {"math", "code", "prod"}
    assert mp("descendants", "prod").out == "nothing came from prod\n"
    own = [each["commit"] for each in mp("log", "prod", "--first-parent", "--json").document]
    assert merge in own
    assert len(own) < len(mp("log", "prod", "--json").document)


def test_why_one_merge_differs_from_another(merging: Path, family: dict[str, Path], mp: Mp) -> None:
    from safetensors.torch import load_file, save_file

    merge = ["merge", "math", "code", "--base", "base", "--density", "0.5", "-b", "prod"]
    mp(*merge)
    path = family["code"] / "model.safetensors"
    weights = load_file(path)
    weights["layer.v"] *= -6
    save_file(weights, path, {"format": "pt"})
    mp("commit", family["code"], "-b", "code")
    mp(*merge)
    document = mp("explain", "prod~1", "prod", "--json").document
    assert [each["name"] for each in document["inputs"]] == ["code"]
    changed = document["inputs"][0]
    assert changed["before"] == mp("show", "code~1", "--json").document["commit"]
    assert changed["after"] == mp("show", "code", "--json").document["commit"]
    assert changed["blame"] == pytest.approx(1.0)
    assert document["tensors"][0]["name"] == "layer.v"
    assert document["tensors"][0]["shares"] == [1.0]
    text = mp("explain", "prod~1", "prod").out
    assert "code 100" in text
    mp("rollback", "prod", "prod~1")
    back = mp("explain", "prod~1", "prod", "--json").document
    assert (back["inputs"][0]["before"], back["inputs"][0]["after"]) == (
        changed["after"],
        changed["before"],
    )
    assert "the same inputs" in mp("explain", "prod", "prod").out
    assert "is no merge" in mp("explain", "prod", "code", expect=13).err
    assert "about one merge" in mp("explain", "prod", "prod", "--tensor", "x", expect=2).err
