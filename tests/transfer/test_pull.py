"""Pull: what is fetched, and files that follow the branch, of which none is overwritten."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import Diverged, RevisionNotFound, UsageError, WorktreeDirty

from .remotes import Family, clone_of, same_models


def test_pull_brings_files_along(family: Family, tmp_path: Path) -> None:
    with clone_of(family, tmp_path) as repo:
        assert repo.status() == ()
        assert repo.pull().old == repo.resolve("main")
        family.tune("main")
        pulled = repo.pull()
        assert pulled.files
        assert pulled.new == family.repo.resolve("main") == repo.resolve("HEAD")
        assert repo.status() == ()
        assert same_models(family.repo, repo, tmp_path, "main")


def test_pull_without_files(family: Family, tmp_path: Path) -> None:
    with clone_of(family, tmp_path, checkout=False) as repo:
        family.tune("main")
        assert not repo.pull().files
        assert [path.name for path in (tmp_path / "clone").iterdir()] == [".mergepipe"]


def test_pull_overwrites_nothing(family: Family, tmp_path: Path) -> None:
    with clone_of(family, tmp_path) as repo:
        before = repo.resolve("main")
        (tmp_path / "clone/config.json").write_text("mine")
        family.tune("main")
        with pytest.raises(WorktreeDirty):
            repo.pull()
        assert repo.resolve("main") == before
        assert repo.resolve("origin/main") == family.repo.resolve("main")
        assert (tmp_path / "clone/config.json").read_text() == "mine"


def test_pull_goes_forward_only(family: Family, tmp_path: Path) -> None:
    with clone_of(family, tmp_path) as repo:
        (tmp_path / "clone/config.json").write_text("mine")
        mine = repo.commit(message="mine").commit
        assert repo.pull().new == mine  # ahead of the other side
        family.tune("main")
        with pytest.raises(Diverged, match="origin/main"):
            repo.pull()
        assert repo.resolve("main") == mine
        repo.checkout("HEAD~1")
        with pytest.raises(UsageError):
            repo.pull()


def test_pull_into_an_empty_repository(family: Family, here: Repository) -> None:
    with pytest.raises(UsageError, match="no remote"):
        here.pull()
    here.configure("remote.origin.url", str(family.folder / "here"))
    assert here.pull().old is None
    assert here.resolve("HEAD") == family.repo.resolve("main")
    with pytest.raises(RevisionNotFound):
        here.pull(branch="nowhere")
