"""The index is a cache: deleted, cut, zeroed, stale or scrambled, it costs nothing but time."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    new_repository,
    opened,
    problems,
    verify,
)

COMMITS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of some commits, and beside it an index from before the last ones."""
    folder = tmp_path_factory.mktemp("made")
    new_repository(folder / "repo")
    for number in range(COMMITS):
        with opened(folder / "repo") as repo:
            commit_model(repo, number, folder)
        if number == 2:
            shutil.copytree(folder / "repo/.mergepipe/index", folder / "stale")
    return folder


def delete(index: Path, made: Path) -> None:
    shutil.rmtree(index)


def delete_data(index: Path, made: Path) -> None:
    (index / "data.mdb").unlink()


def cut(share: float, index: Path, made: Path) -> None:
    data = (index / "data.mdb").read_bytes()
    (index / "data.mdb").write_bytes(data[: int(len(data) * share)])


def zero(index: Path, made: Path) -> None:
    size = (index / "data.mdb").stat().st_size
    (index / "data.mdb").write_bytes(bytes(size))


def zero_but_meta(index: Path, made: Path) -> None:
    data = (index / "data.mdb").read_bytes()
    (index / "data.mdb").write_bytes(data[:8192] + bytes(len(data) - 8192))


def stale(index: Path, made: Path) -> None:
    shutil.rmtree(index)
    shutil.copytree(made / "stale", index)


def text(index: Path, made: Path) -> None:
    (index / "data.mdb").write_text("not an index\n" * 4000)


def folder(index: Path, made: Path) -> None:
    shutil.rmtree(index)
    index.mkdir()
    (index / "data.mdb").mkdir()


def scramble(seed: int, index: Path, made: Path) -> None:
    """Single bytes here and there."""
    rng = random.Random(seed)
    data = bytearray((index / "data.mdb").read_bytes())
    for _ in range(rng.randint(1, 40)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (index / "data.mdb").write_bytes(data)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "deleted": delete,
    "data deleted": delete_data,
    "cut to nothing": partial(cut, 0),
    "cut to a page": partial(cut, 0.1),
    "cut in half": partial(cut, 0.5),
    "cut at the end": partial(cut, 0.95),
    "zeroed": zero,
    "zeroed but its head": zero_but_meta,
    "stale": stale,
    "text": text,
}


def everything_works(root: Path, scratch: Path) -> None:
    assert verify(root, scratch) == {"refs/heads/main": list(range(COMMITS))[::-1]}
    with opened(root) as repo:
        commit_model(repo, COMMITS, scratch)
    assert verify(root, scratch) == {"refs/heads/main": list(range(COMMITS + 1))[::-1]}
    # What fsck still has to say is of the index, and mended with it.
    assert all(problem.startswith("index ") for problem in problems(root))
    assert problems(root, repair=True) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_index_loses_nothing(made: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "repo"
    shutil.copytree(made / "repo", root)
    DAMAGES[damage](root / ".mergepipe/index", made)
    (tmp_path / "scratch").mkdir()
    # In a child: a damaged map may end in a signal, which no process here may.
    child = in_child(partial(everything_works, root, tmp_path / "scratch"))
    assert finish(child) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_a_scrambled_index_loses_nothing(made: Path, tmp_path: Path, seed: int) -> None:
    root = tmp_path / "repo"
    shutil.copytree(made / "repo", root)
    scramble(seed, root / ".mergepipe/index", made)
    (tmp_path / "scratch").mkdir()
    assert finish(in_child(partial(everything_works, root, tmp_path / "scratch"))) == 0
