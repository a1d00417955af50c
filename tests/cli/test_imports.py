"""`mp import`: families from a list, resumable."""

import os
from pathlib import Path

import msgspec
import pytest

from mergepipe.cli.commands.imports import ImportDocument
from tests.cli.conftest import Mp
from tests.cli.families import write_family

LIST = """\
[[model]]
path = "models/math"
branch = "math"
base = "base"
message = "Good at sums"

[[model]]
path = "models/base"
branch = "base"

[[model]]
path = "models/code"
branch = "code"
base = "base"
"""


@pytest.fixture
def listed(repository: Path) -> Path:
    """A list beside the repository, of models beside the list."""
    write_family(repository.parent / "models")
    path = repository.parent / "family.toml"
    path.write_text(LIST)
    return path


def test_bases_come_first_and_are_leant_on(listed: Path, mp: Mp) -> None:
    found = mp("import", listed, "--json").document
    assert msgspec.convert(found, ImportDocument).imported == 3
    assert [model["branch"] for model in found["models"]] == ["base", "math", "code"]
    base, math, code = found["models"]
    assert base["base"] is None
    assert math["base"] == code["base"] == base["commit"]
    assert math["stored_bytes"] < base["stored_bytes"]
    [entry] = mp("log", "math", "--json").document
    assert entry["message"] == "Good at sums"
    mp("merge", "math", "code", "-b", "merged")


def test_what_is_there_is_not_read_again(listed: Path, mp: Mp) -> None:
    first = mp("import", listed, "--json").document
    again = mp("import", listed, "--json").document
    assert again["imported"] == again["stored_bytes"] == 0
    assert [model["read"] for model in again["models"]] == [False] * 3
    commits = [[model["commit"] for model in one["models"]] for one in (first, again)]
    assert commits[0] == commits[1]
    # Touched, but the same: read, found to be the same, and no new commit.
    os.utime(listed.parent / "models/code/model.safetensors")
    *_, code = mp("import", listed, "--json").document["models"]
    assert (code["read"], code["unchanged"]) == (True, True)


def test_an_interrupted_import_goes_on(listed: Path, mp: Mp) -> None:
    weights = listed.parent / "models/code/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    stopped = mp("import", listed, expect=12)
    assert stopped.err.startswith("error: 'code': ")
    assert len(stopped.out.splitlines()) == 2
    weights.write_bytes(whole)
    found = mp("import", listed, "--json").document
    assert [model["read"] for model in found["models"]] == [False, False, True]
    assert found["imported"] == 1
    assert "there already, not read again" in mp("import", listed).out


@pytest.mark.parametrize(
    ("before", "after", "code", "said"),
    [
        ("models/code", "models/gone", 1, "'code': there is no"),
        ('branch = "code"', 'branch = "a b"', 2, "a b"),
        ('branch = "code"', 'branch = "math"', 1, "names a branch twice"),
        ('"code"\nbase = "base"', '"code"\nbase = "nosuch"', 1, "'code': no branch"),
        ('branch = "base"', 'branch = "base"\nbase = "math"', 1, "leans on itself"),
        ("message", "mesage", 1, "mesage"),
        ("[[model]]", "[[model", 1, "no TOML"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_read(
    listed: Path, mp: Mp, before: str, after: str, code: int, said: str
) -> None:
    listed.write_text(LIST.replace(before, after))
    error = mp("import", listed, "--json", expect=code).document["error"]
    assert said in error["message"]
    assert mp("branch", "--json").document == []


def test_a_list_that_is_not_there(repository: Path, mp: Mp) -> None:
    assert "cannot read the import list" in mp("import", "nosuch.toml", expect=1).err
