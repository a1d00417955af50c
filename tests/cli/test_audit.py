"""Who did what: commits, merges with what they took, pushes by token and author, purges."""

from pathlib import Path

import pytest

from mergepipe.repository.push_log import PushEntry, PushLog
from tests.cli.conftest import Mp
from tests.cli.families import TIES
from tests.cli.models import write_model

START = 1_790_000_000
DAY = 86_400


def _at(day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + day * DAY} +0000")


def test_a_merge_a_push_and_a_purge(
    merging: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(0, monkeypatch)
    mp("commit", write_model(tmp_path / "other"), "-b", "other", "-m", "Other")
    _at(1, monkeypatch)
    mp("merge", *TIES, "--budget", "raw:10%", "-b", "prod", "-m", "Daily")
    prod = mp("show", "prod", "--json").document["commit"]
    PushLog(merging / ".mergepipe").append(
        PushEntry(START + 2 * DAY, "push", "ci", "10.0.0.7", "done", "refs/heads/prod", "", prod)
    )
    _at(3, monkeypatch)
    mp("purge", "other", "--reason", "Withdrawn", "--yes")
    since = "2026-09-22"  # the day after START
    entries = mp("audit", "--since", since, "--until", str(START + 4 * DAY), "--json").document
    # What the family's own commits are dated now lies outside.
    assert [each["kind"] for each in entries] == ["merge", "push", "purge"]
    merge, push, purge = entries
    assert merge["commit"] == prod
    assert merge["who"] == "Ada <ada@example.org>"
    assert merge["method"] == "ties"
    assert merge["budget"] == "raw:10%"
    assert merge["expert_bytes_read"] > 0
    assert merge["seconds"] > 0
    assert merge["device"] == "cpu"
    roles = {each["name"]: each["role"] for each in merge["inputs"]}
    assert roles == {"base": "base", "math": "expert", "code": "expert"}
    commits = {each["name"]: each["commit"] for each in merge["inputs"]}
    assert commits["code"] == mp("show", "code", "--json").document["commit"]
    assert (push["who"], push["author"]) == ("ci", "Ada <ada@example.org>")
    assert (purge["who"], purge["detail"]) == ("Ada <ada@example.org>", "Withdrawn")
    text = mp("audit", "--since", since, "--until", str(START + 4 * DAY)).out
    assert "ties of" in text
    assert "budget raw:10%" in text
    assert "made by Ada <ada@example.org>" in text


def test_a_base_that_nobody_named_has_a_name(merging: Path, mp: Mp) -> None:
    mp("merge", "math", "code", "-b", "prod")
    merge = next(each for each in mp("audit", "--json").document if each["kind"] == "merge")
    assert {each["name"] for each in merge["inputs"]} == {"base", "math", "code"}
