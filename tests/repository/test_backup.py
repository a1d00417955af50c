"""docs/backup.md: what it says to copy, in its order, while others commit, restores everything."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from tests.repository.checkpoints import commit, write_model

PAGE = Path(__file__).parents[2] / "docs/backup.md"


def _steps(here: Path, there: Path) -> list[tuple[list[Path], Path]]:
    """The page's `cp -a` lines: what they copy, and where to."""
    steps = []
    for line in re.findall(r"^    cp -a (.*)$", PAGE.read_text(), re.M):
        *sources, target = shlex.split(line)
        copied = [here / source.removeprefix(".mergepipe/") for source in sources]
        assert target == "BACKUP/.mergepipe/"
        steps.append((copied, there))
    return steps


def test_files_are_copied_while_work_goes_on(tmp_path: Path) -> None:
    weights = np.arange(5000.0)
    with Repository.init(tmp_path / "repo", block_size=4096) as repository:
        first = commit(repository, write_model(tmp_path / "a", {"w": weights}), "main")
        backup = tmp_path / "backup/.mergepipe"
        backup.mkdir(parents=True)
        steps = _steps(repository.directory, backup)
        assert len(steps) == 2
        for number, (sources, target) in enumerate(steps):
            for source in sources:
                copy = shutil.copytree if source.is_dir() else shutil.copy2
                copy(source, target / source.name)
            # Between any two steps somebody commits, on the branch and beside it.
            changed = {"w": weights + number}
            commit(repository, write_model(tmp_path / f"b{number}", changed), "main")
            commit(repository, write_model(tmp_path / f"c{number}", changed), f"other{number}")
    with Repository.open(tmp_path / "backup") as restored:
        assert restored.branches() == {"main": first}
        assert not restored.fsck(read_data=True).problems
        restored.checkout("main", to=tmp_path / "out")
    original = (tmp_path / "a/model.safetensors").read_bytes()
    assert (tmp_path / "out/model.safetensors").read_bytes() == original


def test_what_is_left_out_is_made_again(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repo", block_size=4096) as repository:
        tip = commit(repository, write_model(tmp_path / "a", {"w": np.arange(99.0)}), "main")
    named = re.search(r"Leave out (.*?): the index", PAGE.read_text(), re.S)
    assert named is not None
    for name in re.findall(r"`([a-z.]+)/?`", named[1]):
        path = tmp_path / "repo/.mergepipe" / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with Repository.open(tmp_path / "repo") as repository:
        assert repository.branches() == {"main": tip}
        assert not repository.fsck(read_data=True).problems
