"""Damaged packs: never a wrong byte, always a typed error, and fsck finds it."""

import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from mergepipe.errors import Corruption, MergepipeError
from tests.properties.trees import read_tree
from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    model,
    new_repository,
    opened,
    problems,
)

COMMITS = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    new_repository(folder / "repo")
    with opened(folder / "repo") as repo:
        for number in range(COMMITS):
            commit_model(repo, number, folder)
    return folder / "repo"


def damage(root: Path, rng: random.Random) -> str:
    """Break one pack somewhere; says how."""
    pack = rng.choice(sorted((root / ".mergepipe/packs").iterdir()))
    data = bytearray(pack.read_bytes())
    at = rng.randrange(len(data))
    how = rng.choice(["flip", "flip", "flip", "cut", "zero", "gone", "longer"])
    if how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "zero":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif how == "longer":
        data += bytes(100)
    pack.chmod(0o644)
    if how == "gone":
        pack.unlink()
    else:
        pack.write_bytes(data)
    return f"{how} at {at} of {pack.name}"


def right_or_refused(root: Path, scratch: Path, lose_index: bool, seed: int) -> None:
    """Every model comes out right, or with an error of exit code 12; fsck says so too."""
    how = damage(root, random.Random(seed))
    if lose_index:
        shutil.rmtree(root / ".mergepipe/index")
    refused = 0
    for back in range(COMMITS):
        out = scratch / f"out{back}"
        try:
            with opened(root) as repo:
                repo.checkout(f"main~{back}", to=out)
        except MergepipeError as error:
            assert isinstance(error, Corruption), how
            assert error.exit_code == 12
            refused += 1
            # Files that are there are whole: one that could not be is not there at all.
            expected = model(COMMITS - 1 - back)
            for path, file in (read_tree(out) if out.exists() else {}).items():
                assert file == expected[path], how
        else:
            assert read_tree(out) == model(COMMITS - 1 - back), how
    if refused:
        assert problems(root), how


def attempt(made: Path, tmp_path: Path, lose_index: bool, seed: int) -> None:
    root, scratch = tmp_path / f"repo{seed}", tmp_path / f"scratch{seed}"
    shutil.copytree(made, root)
    scratch.mkdir()
    right_or_refused(root, scratch, lose_index, seed)
    shutil.rmtree(root)
    shutil.rmtree(scratch)


def several(made: Path, tmp_path: Path, lose_index: bool, seeds: range) -> None:
    for seed in seeds:
        attempt(made, tmp_path, lose_index, seed)


@pytest.mark.parametrize("lose_index", [False, True])
def test_damage_is_never_handed_out(made: Path, tmp_path: Path, lose_index: bool) -> None:
    assert finish(in_child(partial(several, made, tmp_path, lose_index, range(25)))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("lose_index", [False, True])
def test_damage_is_never_handed_out_many_times(
    made: Path, tmp_path: Path, lose_index: bool
) -> None:
    assert finish(in_child(partial(several, made, tmp_path, lose_index, range(25, 800)))) == 0
