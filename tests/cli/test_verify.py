"""`mp verify`: are these the files of that commit? And the SHA-256 that other places show."""

import hashlib
from pathlib import Path

import pytest

from tests.cli.conftest import Mp
from tests.cli.models import write_model


def test_the_same_files_however_they_are_cut(committed: Path, model: Path, mp: Mp) -> None:
    mp("config", "store.block_size", "4KiB")
    assert mp("verify", model, "main").out.startswith("ok: ")
    assert mp("verify", "main", model).code == 0  # typed the other way round
    assert mp("verify", model / "model.safetensors").code == 0
    assert mp("verify", model, "--json").document["ok"]


def test_every_kind_of_difference(committed: Path, model: Path, mp: Mp) -> None:
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    (model / "config.json").unlink()
    (model / "more.txt").touch()
    (model / "run.sh").chmod(0o644)
    found = mp("verify", model, "main", "--json", expect=1).document
    assert [(each["path"], each["change"]) for each in found["changes"]] == [
        ("config.json", "deleted"),
        ("model.safetensors", "modified"),
        ("more.txt", "new"),
        ("run.sh", "mode"),
    ]
    assert "4 files differ" in mp("verify", model, "main", expect=1).out
    assert "modified model.safetensors" in mp("verify", weights, "main", expect=1).out


@pytest.mark.parametrize("words", [["nowhere", "main"], ["model", "none"]])
def test_what_is_not_there(committed: Path, model: Path, mp: Mp, words: list[str]) -> None:
    assert mp("verify", *words, expect=2 if words[0] == "nowhere" else 1).err


def test_show_tells_sha256(committed: Path, model: Path, mp: Mp) -> None:
    expected = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir()
    }
    listed = mp("show", "--files", "--json").document["files"]
    assert {file["path"]: file["sha256"] for file in listed} == expected
    assert expected["config.json"] in mp("show", "--sha256").out
    assert mp("show", "--json").document["files"][0]["sha256"] is None


def test_a_merge_that_was_killed_once_it_was_written(merging: Path, tmp_path: Path, mp: Mp) -> None:
    words = ["merge", "math", "code", "--base", "base", "-b", "merged", "--out"]
    mp(*words, tmp_path / "out")
    mp(*words, tmp_path / "out")
    assert mp("verify", tmp_path / "out", "merged").code == 0
    write_model(tmp_path / "out")
    assert "is not empty" in mp(*words, tmp_path / "out", expect=1).err
