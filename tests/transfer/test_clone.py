"""Clone: a repository like the other, or nothing."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import Corruption, RevisionNotFound, UsageError
from tests.repository.checkpoints import WHO

from .remotes import ORIGIN, Family, clone_of, same_models


def test_clone(family: Family, tmp_path: Path) -> None:
    family.tune("math")
    family.repo.tag("v1", "math")
    cloned = Repository.clone(str(family.folder / "here"), tmp_path / "a/b/clone", who=WHO)
    assert cloned.directory == tmp_path / "a/b/clone"
    assert (cloned.branch, cloned.commit) == ("main", family.repo.resolve("main"))
    with Repository.open(tmp_path / "a/b/clone", who=WHO) as repo:
        assert repo.refs.names() == [
            "refs/heads/main",
            ORIGIN + "main",
            ORIGIN + "math",
            "refs/tags/v1",
        ]
        assert repo.status() == ()
        assert repo.config.remote["origin"].url == str(family.folder / "here")
        assert repo.config.store.block_size == family.repo.config.store.block_size
        assert same_models(family.repo, repo, tmp_path, "main", "v1")
        assert repo.fsck(read_data=True).ok
        # And a clone of the clone.
        Repository.clone(str(tmp_path / "a/b/clone"), tmp_path / "again", who=WHO)
        with Repository.open(tmp_path / "again", who=WHO) as other:
            assert same_models(repo, other, tmp_path / "again", "HEAD")


def test_clone_one_branch(family: Family, tmp_path: Path) -> None:
    for name in ("math", "code"):
        family.tune(name)
    with clone_of(family, tmp_path, branch="math") as repo:
        assert repo.refs.names() == ["refs/heads/math", ORIGIN + "math"]
        assert repo.refs.head().short_branch == "math"
        assert repo.fsck(read_data=True).ok


def test_clone_of_nothing(tmp_path: Path) -> None:
    Repository.init(tmp_path / "empty", who=WHO).close()
    cloned = Repository.clone(str(tmp_path / "empty"), tmp_path / "clone", who=WHO)
    assert (cloned.branch, cloned.commit) == ("main", None)
    with Repository.open(tmp_path / "clone", who=WHO) as repo:
        assert repo.refs.head().branch == "refs/heads/main"


def test_a_clone_that_fails_leaves_nothing(family: Family, tmp_path: Path) -> None:
    where = str(family.folder / "here")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for directory, branch, problem in (
        ("new/deep", "nowhere", RevisionNotFound),
        ("empty", "nowhere", RevisionNotFound),
        ("full", None, UsageError),
    ):
        with pytest.raises(problem):
            Repository.clone(where, tmp_path / directory, branch=branch, who=WHO)
        found = {path for path in tmp_path.rglob("*") if family.folder / "here" not in path.parents}
        assert found <= set(before)
    for path in (family.repo.directory / "packs").iterdir():
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(Corruption):
        Repository.clone(where, tmp_path / "new", who=WHO)
    assert not (tmp_path / "new").exists()
    assert not [*tmp_path.glob(".*")]


def test_a_clone_into_an_empty_directory(family: Family, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inode = (tmp_path / "empty").stat().st_ino
    Repository.clone(str(family.folder / "here"), tmp_path / "empty", who=WHO)
    assert (tmp_path / "empty").stat().st_ino == inode
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == [
        ".mergepipe",
        "config.json",
        "model.safetensors",
    ]
