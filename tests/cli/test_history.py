"""Names and history: log, show, branch, tag, reflog, config."""

from pathlib import Path

import pytest

from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

DATE = "2026-11-22T06:04:13+01:00"


def test_log_reads_as_gits(
    repository: Path, model: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_AUTHOR_DATE", DATE)
    mp("commit", model, "-m", "First try\n\nmore")
    mp("tag", "v1")
    identity = mp("log", "--json").document[0]["commit"]
    assert mp("log").out.splitlines() == [
        f"commit {identity} (HEAD -> main, tag: v1)",
        "Author: Ada <ada@example.org>",
        "Date:   Sun Nov 22 06:04:13 2026 +0100",
        "",
        "    First try",
        "",
        "    more",
    ]
    assert mp("log", "--oneline").out == f"{identity[:12]} (HEAD -> main, tag: v1) First try\n"


def test_log_is_newest_first_and_can_be_cut(committed: Path, tmp_path: Path, mp: Mp) -> None:
    for number in range(3):
        mp("commit", write_model(tmp_path / "next", tensors(number + 1)), "-m", f"Try {number}")
    assert [entry["message"] for entry in mp("log", "--json").document] == [
        "Try 2",
        "Try 1",
        "Try 0",
        "First try",
    ]
    assert len(mp("log", "-n", "2", "--oneline").out.splitlines()) == 2
    assert len(mp("log", "-n", "99999999999999999999", "--oneline").out.splitlines()) == 4
    assert len(mp("log", "HEAD~3", "--json").document) == 1
    drawn = mp("log", "--graph", "--oneline").out.splitlines()
    assert [line[:2] for line in drawn] == ["* "] * 4


def test_messages_cannot_command_the_terminal(repository: Path, model: Path, mp: Mp) -> None:
    mp("commit", model, "-m", "red \x1b[31malert")
    for arguments in (["log"], ["log", "--oneline"], ["show"], ["reflog"], ["branch"]):
        assert "\x1b" not in mp(*arguments).out


def test_show_lists_files_and_tensors(committed: Path, mp: Mp) -> None:
    said = mp("show", "--tensors").out
    assert "3 files" in said
    assert "run.sh*" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["embed", "F32", "128x32", "1", "16.0", "KiB"] in lines
    assert "128x32" not in mp("show").out


def test_show_escapes_tensor_names(repository: Path, tmp_path: Path, mp: Mp) -> None:
    odd = {"../../etc/x\n\x1b[2J": tensors()["norm"]}
    mp("commit", write_model(tmp_path / "odd", odd))
    said = mp("show", "--tensors").out
    assert r"../../etc/x\n\x1b[2J" in said
    assert "\x1b" not in said
    assert mp("show", "--tensors", "--json").document["tensors"][0]["name"] in odd


def test_branches_are_made_listed_moved_and_removed(committed: Path, mp: Mp) -> None:
    mp("branch", "side")
    listed = mp("branch").out.splitlines()
    assert listed[0].startswith("* main")
    assert listed[1].startswith("  side")
    assert "exists already" in mp("branch", "side", expect=1).err
    mp("branch", "side", "-f")
    assert mp("branch", "-d", "side").out.startswith("Removed branch side")
    assert "current branch" in mp("branch", "-d", "main", expect=2).err


def test_a_branch_with_commits_of_its_own_needs_force_to_go(
    committed: Path, tmp_path: Path, mp: Mp
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-b", "two")
    assert "--force" in mp("branch", "-d", "two", expect=2).err
    mp("branch", "-d", "two", "--force")
    assert [each["name"] for each in mp("branch", "--json").document] == ["main"]


def test_tags_stay(committed: Path, mp: Mp) -> None:
    assert mp("tag").out == ""
    mp("tag", "v1")
    assert mp("tag").out.startswith("v1  ")
    assert "exists already" in mp("tag", "v1", expect=1).err
    mp("tag", "-d", "v1")
    assert mp("tag", "--json").document == []


def test_reflog_lists_revisions_that_work(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-m", "Second")
    lines = mp("reflog", "main").out.splitlines()
    assert [line.split(" ", 2)[1:] for line in lines] == [
        ["main@{0}:", "commit: Second"],
        ["main@{1}:", "commit: First try"],
    ]
    assert mp("show", "main@{1}", "--json").document["message"] == "First try"


def test_a_fresh_repository_has_an_empty_reflog(repository: Path, mp: Mp) -> None:
    assert mp("reflog").out == ""
    assert "no log" in mp("reflog", "nosuch", expect=1).err


def test_config_is_listed_read_set_and_unset(repository: Path, mp: Mp) -> None:
    assert mp("config", "store.codec").out == "auto\n"
    mp("config", "store.codec", "raw")
    assert mp("config", "--json").document["store.codec"] == "raw"
    text = (repository / ".mergepipe/config.toml").read_text()
    assert 'codec = "raw"' in text
    assert "# How blocks are encoded" in text
    mp("config", "--unset", "store.codec")
    assert mp("config", "store.codec", "--json").document == {"store.codec": "auto"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["store.kodec"], "did you mean store.codec?"),
        (["store.codec", "rar"], "'rar' is not one of auto, fast, small, raw"),
        (["core.threads", "many"], "not a whole number"),
    ],
)
def test_config_that_makes_no_sense(
    repository: Path, mp: Mp, arguments: list[str], said: str
) -> None:
    before = (repository / ".mergepipe/config.toml").read_text()
    assert said in mp("config", *arguments, expect=1).err
    assert (repository / ".mergepipe/config.toml").read_text() == before


def test_log_takes_a_number_as_git_does(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-m", "Second")
    assert len(mp("log", "-1", "--json").document) == 1
    assert len(mp("log", "--oneline", "-2").out.splitlines()) == 2
