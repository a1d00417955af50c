"""`mp clone --depth`, and what lies behind it: `mp fetch --deepen`, `--unshallow`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model


def test_behind_the_newest_commit(
    committed: Path, model: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (2, 3, 4):
        write_model(model, tensors(number))
        mp("commit", model, "-m", f"Try {number}")
    mp("clone", committed, tmp_path / "served", "--depth", "1")
    monkeypatch.chdir(tmp_path / "served")
    [line] = mp("log", "--oneline").out.splitlines()
    assert "(shallow) Try 4" in line
    [entry] = mp("log", "--json").document
    assert (entry["parents"], len(entry["absent"])) == ([], 1)
    assert f"Absent: {entry['absent'][0][:12]}" in mp("log").out
    assert mp("config", "remote.origin.depth").out == "1\n"
    assert (tmp_path / "served/model.safetensors").read_bytes() == (
        model / "model.safetensors"
    ).read_bytes()
    for words in (("show", "HEAD~1"), ("diff", "HEAD~1", "HEAD"), ("rollback", "main", "main~1")):
        assert "mp fetch --unshallow" in mp(*words, expect=1).err
    assert "history goes on" in mp("-v", "fsck").out + mp("-v", "fsck").err
    mp("fetch", "--deepen", "2")
    assert len(mp("log", "--json").document) == 3
    mp("fetch", "--depth", "3", "--deepen", "1", expect=2)
    mp("fetch", "--unshallow")
    assert [each["absent"] for each in mp("log", "--json").document] == [[]] * 4
    assert mp("config", "remote.origin.depth", expect=1).err
    assert not (tmp_path / "served/.mergepipe/absent").exists()


def test_a_pull_goes_so_far_back(
    committed: Path, model: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("clone", committed, tmp_path / "served")
    for number in (2, 3):
        write_model(model, tensors(number))
        mp("commit", model, "-m", f"Try {number}")
    monkeypatch.chdir(tmp_path / "served")
    mp("pull", "--depth", "0", expect=2)
    assert "as far as history is here" in mp("pull", "--depth", "1", expect=1).err
    assert len(mp("log", "--json").document) == 1
    assert "moved from" in mp("pull", "--depth", "3").out
    assert [each["absent"] for each in mp("log", "--json").document] == [[]] * 3
    assert mp("pull", "--depth", "1", "--json").document["fetch"]["refs"] == []
