"""Days of commits, merges and prunes: what is held is what the window needs, however many days."""

from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.repository.retention import Retention
from tests.repository.checkpoints import bf16, commit, new_repository, write_model

SHAPES = {"wide": (512, 512), "norm": (512,)}
KEPT = 3


def write(folder: Path, seed: int, day: int = 0) -> Path:
    """Number `seed` of a family (0: the base), as training leaves it on a day: near what it was."""
    base, own = np.random.default_rng(0), np.random.default_rng(seed)
    noise = np.random.default_rng([seed, day])
    tensors = {}
    for name, shape in SHAPES.items():
        values = base.normal(0, 0.1, shape)
        if seed:
            values = values + own.normal(0, 0.003, shape) + noise.normal(0, 0.0003, shape)
        tensors[name] = bf16(values)
    return write_model(folder, tensors)


def held_bytes(folder: Path) -> int:
    packs = folder / ".mergepipe/packs"
    return sum(path.stat().st_size for path in packs.rglob("*") if path.is_file())


@pytest.mark.parametrize("days", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_what_is_held_is_flat_where_the_window_is_shorter_than_the_run(
    days: int, tmp_path: Path
) -> None:
    """In one process, as a platform runs: it keeps nothing of its earlier days by itself."""
    names, held = {"one": 1, "two": 2}, []
    with new_repository(tmp_path / "models", 256 << 10, "auto") as repository:
        commit(repository, write(tmp_path / "model", 0), "base")
        for day in range(days):
            for name, seed in names.items():
                commit(
                    repository,
                    write(tmp_path / "model", seed, day),
                    name,
                    None if day else "base",
                )
            plan = repository.plan(
                base="base", experts=list(names), method="task_arithmetic", budget="raw:10%"
            )
            repository.merge(plan, branch="prod")
            repository.prune(retention=Retention(last=KEPT))
            held.append(held_bytes(tmp_path / "models"))
        steady = held[-days // 3 :]
        assert max(steady) - min(steady) < 0.05 * np.mean(steady)
    with Repository.open(tmp_path / "models") as repository:
        assert repository.gc(grace_s=0).freed_bytes < 0.02 * held[-1]
        assert repository.fsck().ok
