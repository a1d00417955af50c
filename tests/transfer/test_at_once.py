"""The ranks of a job, all of which pull, check out or clone the same at the same time."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import WorktreeDirty
from tests.properties.trees import read_tree
from tests.repository.checkpoints import WHO
from tests.torture.models import finish, in_child, problems

RANKS = 6


def commit(root: Path, number: int) -> None:
    model = root.parent / f"model-{number}"
    for name in ("a.bin", "b/c.bin"):
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(f"{name} {number}").randbytes(300_000))
    with Repository.open(root, who=WHO) as repo:
        repo.commit(model, message=str(number))


def at_once(work: Callable[[], object]) -> None:
    def alone() -> None:
        work()

    assert [finish(child) for child in [in_child(alone) for _ in range(RANKS)]] == [0] * RANKS


@pytest.fixture
def here(tmp_path: Path) -> Path:
    origin = tmp_path / "origin"
    Repository.init(origin, who=WHO).close()
    commit(origin, 1)
    Repository.clone(str(origin), tmp_path / "here", who=WHO)
    commit(origin, 2)
    return tmp_path / "here"


def test_pull(here: Path, tmp_path: Path) -> None:
    def pull() -> None:
        with Repository.open(here, who=WHO) as repo:
            repo.pull()

    at_once(pull)
    assert read_tree(here) == read_tree(tmp_path / "model-2")
    with Repository.open(here, who=WHO) as repo:
        assert repo.status() == ()
        assert repo.resolve("main") == repo.resolve("origin/main")
    assert problems(here) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_checkout(here: Path, tmp_path: Path, elsewhere: bool) -> None:
    place = tmp_path / "out" if elsewhere else here

    def check_out() -> None:
        with Repository.open(here, who=WHO) as repo:
            repo.fetch()
            repo.checkout("origin/main", to=place if elsewhere else None)

    at_once(check_out)
    assert read_tree(place) == read_tree(tmp_path / "model-2")


def test_checkout_replaces_nothing_that_differs(here: Path, tmp_path: Path) -> None:
    with Repository.open(here, who=WHO) as repo:
        repo.checkout("main", to=tmp_path / "out")
        (tmp_path / "out" / "b" / "c.bin").unlink()
        repo.checkout("main", to=tmp_path / "out")
        (tmp_path / "out" / "a.bin").write_bytes(b"mine")
        with pytest.raises(WorktreeDirty, match=r"holds 'a\.bin' already"):
            repo.checkout("main", to=tmp_path / "out")
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"mine"
