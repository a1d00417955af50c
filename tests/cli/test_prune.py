"""Keeping some models of a branch, and freeing the room of the others."""

from pathlib import Path

import pytest

from mergepipe import Repository
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

DAY = 86400
START = 1_790_000_000


@pytest.fixture
def branch(
    repository: Path, model: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Six unlike models on `main`, one a day; ids, oldest first. The files are in `daysN`."""
    identities = []
    for day in range(6):
        write_model(model, tensors(day))
        write_model(tmp_path / f"day{day}", tensors(day))
        monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + day * DAY} +0000")
        mp("commit", model, "-m", f"Day {day}")
        identities.append(mp("show", "main", "--json").document["commit"])
    return identities


def _packs(top: Path) -> int:
    return sum(path.stat().st_size for path in (top / ".mergepipe/packs").iterdir())


def _same(there: Path, here: Path) -> bool:
    return all((there / each.name).read_bytes() == each.read_bytes() for each in here.iterdir())


def test_the_last_two_are_kept(branch: list[str], repository: Path, mp: Mp, tmp_path: Path) -> None:
    before = _packs(repository)
    told = mp("prune", "--keep-last", "2", "--dry-run", "--json").document
    assert told["commits"] == branch[3::-1]
    assert _packs(repository) == before
    done = mp("prune", "--keep-last", "2", "--json").document
    assert done["commits"] == told["commits"]
    assert done["freed_bytes"] > 0
    assert _packs(repository) < 0.6 * before
    assert before - _packs(repository) == done["freed_bytes"]
    assert [each["commit"] for each in mp("log", "--json").document] == branch[::-1]
    for day in (4, 5):
        mp("checkout", branch[day], "--to", tmp_path / f"out{day}")
        assert _same(tmp_path / f"out{day}", tmp_path / f"day{day}")
    assert "was pruned on" in mp("checkout", "main~3", "--to", tmp_path / "gone", expect=1).err
    assert "was pruned on" in mp("show", "main~3", expect=1).err
    assert "was pruned on" in mp("diff", "main~3", "main", expect=1).err
    assert "was pruned on" in mp("show", "main~3:run.sh", expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out
    assert mp("prune", "--keep-last", "2").out == "Nothing to let go of\n"
    mp("prune", expect=2)
    assert "no branch" in mp("prune", "v1", "--keep-last", "1", expect=1).err


def test_days_weeks_and_tags(branch: list[str], mp: Mp) -> None:
    mp("tag", "v1", branch[0])

    def going(*options: str) -> list[int]:
        document = mp("prune", *options, "--dry-run", "--json").document
        return sorted(branch.index(each) for each in document["commits"])

    assert going("--keep-daily", "3") == [1, 2]
    assert going("--keep-daily", "3", "--no-keep-tags") == [0, 1, 2]
    # 1,790,000,000 is a Monday: all six days are of one week.
    assert going("--keep-weekly", "2") == [1, 2, 3, 4]


def test_a_kept_merge_replays_and_its_base_stays(merging: Path, mp: Mp, tmp_path: Path) -> None:
    mp("merge", "math", "code", "--base", "base", "-b", "prod")
    for name in ("math", "code"):
        write_model(tmp_path / "models" / name, tensors(7))
        mp("commit", tmp_path / "models" / name, "-b", name, "--base", "base")
    mp("prune", "--keep-last", "1")
    mp("replay", "prod")
    assert "no problems" in mp("fsck", "--read-data").out


def test_what_is_cloned_of_a_pruned_repository(
    branch: list[str], repository: Path, mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("prune", "--keep-last", "2")
    mp("clone", repository, tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    assert len(mp("log", "--json").document) == 6
    assert "no problems" in mp("fsck", "--read-data").out
    assert "was pruned on" in mp("checkout", branch[1], expect=1).err
    mp("gc", "--prune=now")
    mp("init", tmp_path / "empty")
    text = mp("push", tmp_path / "empty", "main", expect=1).err
    assert "pruned" in text


def test_a_remote_that_keeps_more_takes_what_is_new(
    branch: list[str], repository: Path, model: Path, mp: Mp, tmp_path: Path
) -> None:
    mp("init", tmp_path / "there")
    mp("remote", "add", "origin", tmp_path / "there")
    mp("push", "origin", "main")
    mp("prune", "--keep-last", "1")
    write_model(model, tensors(9))
    mp("commit", model)
    mp("push", "origin", "main")
    mp("fetch")
    with Repository.open(tmp_path / "there") as there:
        assert not there.fsck(read_data=True).problems
        assert there.model_of(branch[0])
