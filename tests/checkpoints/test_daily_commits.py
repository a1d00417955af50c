"""A version that is committed plainly, day after day, is as good to a budget as one with --base."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mergepipe.api import Repository

SHAPES = {"embed": (300, 96), "layer.w": (192, 128), "norm": (96,), "layer.v": (96, 160)}
DAYS = 3


def write(folder: Path, seed: int, day: int = 0) -> Path:
    """Number `seed` of a family (0: the base), which moves a little every day."""
    base, own = np.random.default_rng(0), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, shape in SHAPES.items():
        values = base.normal(0, 0.1, shape)
        if seed:
            values = values + own.normal(0, 0.01, shape)
            for number in range(day):
                step = np.random.default_rng(100 * seed + number)
                values = values + step.normal(0, 0.002, shape)
        tensors[name] = torch.from_numpy(values).bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def committed(where: Path, *, base: str | None) -> tuple[int, list[float]]:
    """Bytes stored for the days' versions, and the energy that a budget keeps after each."""
    stored, kept = 0, []
    with Repository.init(where / "repository", block_size=16384) as repository:
        repository.commit(write(where / "model", 0), branch="base")
        for name, seed in (("math", 1), ("code", 2)):
            repository.commit(write(where / "model", seed), branch=name, base="base")
        for day in range(1, DAYS + 1):
            made = repository.commit(write(where / "model", 1, day), branch="math", base=base)
            stored += made.stored_bytes
            assert made.trained_from == repository.resolve("base")
            plan = repository.plan(experts=["math", "code"], budget="raw:10%", weight=0.5)
            kept.append(plan.costs.energy_kept)
        assert repository.profile_bytes == 0
    return stored, kept


def test_a_plain_commit_is_worth_what_one_with_a_base_is(tmp_path: Path) -> None:
    plain, kept = committed(tmp_path / "plain", base=None)
    named, wanted = committed(tmp_path / "named", base="base")
    assert plain <= 1.15 * named
    assert all(abs(one - other) <= 0.02 for one, other in zip(kept, wanted, strict=True))
