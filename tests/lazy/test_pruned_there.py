"""A first read of a model that the lazy clone's remote has let go of."""

from pathlib import Path

import pytest

from mergepipe import Repository
from mergepipe.errors import Purged, RevisionNotFound
from mergepipe.repository.retention import Retention
from tests.cli.conftest import Mp, _environment, mp  # noqa: F401  # fixtures
from tests.cli.models import tensors, write_model


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A lazy clone of a remote with two models on main."""
    with Repository.init(tmp_path / "there") as there:
        for day in range(2):
            there.commit(write_model(tmp_path / f"day{day}", tensors(day)), branch="main")
    Repository.clone(str(tmp_path / "there"), tmp_path / "clone", lazy=True)
    return tmp_path / "clone"


def test_it_is_told_as_pruned(clone: Path, tmp_path: Path, mp: Mp) -> None:  # noqa: F811
    with Repository.open(tmp_path / "there") as there:
        there.prune((), Retention(1), grace_s=0)
    told = mp("-C", clone, "checkout", "main~1", "--to", tmp_path / "out", expect=1).err
    assert "was pruned on the remote 'origin'" in told
    assert "kept by no other remote" in told
    # It is known from now on, also without asking.
    told = mp("-C", clone, "diff", "main~1", "main", expect=1).err
    assert "was pruned on" in told
    mp("-C", clone, "checkout", "main", "--to", tmp_path / "kept")


def test_who_else_has_it_is_told(clone: Path, tmp_path: Path) -> None:
    Repository.clone(str(tmp_path / "there"), tmp_path / "backup", checkout=False)
    with Repository.open(clone) as mine:
        from mergepipe.api.remotes import add

        add(mine, "backup", str(tmp_path / "backup"))
        mine.fetch("backup")
        with Repository.open(tmp_path / "there") as there:
            there.prune((), Retention(1), grace_s=0)
        with pytest.raises(RevisionNotFound, match="kept by backup") as raised:
            mine.checkout("main~1", to=tmp_path / "out")
    assert f"mp clone {tmp_path / 'backup'}" in raised.value.hint


def test_a_purged_one_too(clone: Path, tmp_path: Path) -> None:
    with Repository.open(tmp_path / "there") as there:
        there.purge("main~1", reason="Withdrawn")
    with Repository.open(clone) as mine, pytest.raises(Purged, match="Withdrawn"):
        mine.checkout("main~1", to=tmp_path / "out")
