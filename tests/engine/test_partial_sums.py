"""Sums that are kept: the same ids as without, and fewer bytes read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergepipe.api import Repository
from mergepipe.engine.partial_sums import SUMS

SHAPES = {"embed": (300, 96), "layer.w": (192, 128), "norm": (96,), "layer.v": (96, 160)}
COUNT = 5
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("linear", {"normalize": False, "weight": 0.3}),
    ("task_arithmetic", {"weight": 0.3}),
    ("task_arithmetic", {"weight": 0.2, "lambda": 0.7, "normalize": True}),
]


def write(folder: Path, seed: int, dtype: torch.dtype, *, same: bool = False) -> Path:
    """Number `seed` of a family; 0: the base. same: some of it is the base's."""
    base = np.random.default_rng(0)
    own = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, shape in SHAPES.items():
        values = base.normal(0, 0.1, shape)
        change = own.normal(0, 0.01, shape) * 10.0 ** own.uniform(-3, 0, shape)
        if seed and not (same and name == "embed"):
            values = values + change
        tensors[name] = torch.from_numpy(values).to(dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32], ids=str)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    repository = Repository.init(tmp_path / "repository", block_size=16384)
    repository.commit(write(tmp_path / "base", 0, request.param), branch="base")
    for number in range(1, COUNT + 1):
        model = write(tmp_path / f"{number}", number, request.param, same=number == 2)
        repository.commit(model, branch=f"e{number}", base="base")
    for number in (3, COUNT):  # the next day's
        model = write(tmp_path / f"new{number}", 10 + number, request.param)
        repository.commit(model, branch=f"new{number}", base="base")
    repository.configure("merge.cache", "64MiB")
    return repository


def experts(changed: int | None = None) -> list[str]:
    names = [f"e{number}" for number in range(1, COUNT + 1)]
    if changed is not None:
        names[changed - 1] = f"new{changed}"
    return names


@pytest.mark.parametrize(("method", "parameters"), METHODS)
def test_the_same_ids_and_a_fifth_of_the_bytes(
    family: Repository, method: str, parameters: dict[str, Any]
) -> None:
    first = family.plan(base="base", experts=experts(), method=method, **parameters)
    assert family.merge(first, branch="first").costs.cache_bytes == 0
    for changed, most in ((COUNT, 0.25), (3, 0.7)):
        plan = family.plan(base="base", experts=experts(changed), method=method, **parameters)
        made = family.merge(plan, branch=f"with{changed}")
        full = plan.costs.expert_bytes_planned
        assert 0 < made.expert_bytes_read <= most * full
        assert made.costs.cache_bytes > 0
        without = family.merge(plan, branch=f"without{changed}", reuse=False)
        assert without.expert_bytes_read == full
        assert without.snapshot == made.snapshot
        assert without.manifest_id == made.manifest_id
        assert family.replay(f"with{changed}").same


def files(repository: Repository) -> list[Path]:
    return sorted((repository.directory / SUMS).rglob("*/*"))


def test_room_is_kept_to_and_gc_takes_it(family: Repository) -> None:
    def merge(changed: int | None, branch: str) -> int:
        plan = family.plan(base="base", experts=experts(changed), method="linear")
        return family.merge(plan, branch=branch).expert_bytes_read

    merge(None, "one")
    everything = sum(file.stat().st_size for file in files(family))
    for file in files(family):
        file.unlink()
    room = everything // 2
    family.configure("merge.cache", str(room))
    merge(3, "two")
    assert 0 < sum(file.stat().st_size for file in files(family)) <= room
    merge(COUNT, "three")
    assert 0 < sum(file.stat().st_size for file in files(family)) <= room
    assert family.gc().freed_bytes > 0
    assert not files(family)


def test_a_damaged_sum_is_none(family: Repository) -> None:
    plan = family.plan(base="base", experts=experts(), method="linear")
    family.merge(plan, branch="one")
    for number, file in enumerate(files(family)):
        stored = bytearray(file.read_bytes())
        if number % 2:
            stored[len(stored) // 2] ^= 1
            file.write_bytes(stored)
        else:
            file.write_bytes(stored[:20])
    plan = family.plan(base="base", experts=experts(COUNT), method="linear")
    made = family.merge(plan, branch="two")
    assert made.expert_bytes_read == plan.costs.expert_bytes_planned
    assert family.merge(plan, branch="three", reuse=False).snapshot == made.snapshot


@pytest.mark.parametrize("method", ["ties", "slerp"])
def test_other_methods_keep_none(family: Repository, method: str) -> None:
    names = experts()[:2] if method == "slerp" else experts()
    parameters: dict[str, Any] = {"t": 0.5} if method == "slerp" else {"density": 0.5}
    base = None if method == "slerp" else "base"
    family.merge(family.plan(base=base, experts=names, method=method, **parameters), branch="m")
    assert not files(family)


def test_without_room_nothing_is_kept(family: Repository) -> None:
    family.configure("merge.cache", "0")
    family.merge(family.plan(base="base", experts=experts(), method="linear"), branch="m")
    assert not files(family)
