"""du: sums that add up, and bytes that are what packs hold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.repository.usage import Usage, default_revisions, measure
from tests.packs.delta_codec import delta_block, store_blocks

from .checkpoints import commit, new_repository, write_model

CHANCE = np.random.default_rng(2)
HEADER = 128


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        yield opened


def usage(repo: Repository, *names: str) -> Usage:
    chosen = [(name, repo.resolve(name)) for name in names] or default_revisions(repo.refs)
    return measure(chosen, repo.objects, repo.storage)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def adds_up(found: Usage) -> bool:
    return found.raw_bytes == (
        found.dedup_saved_bytes + found.coding_saved_bytes + found.stored_bytes
    )


def test_nothing(repo: Repository) -> None:
    assert usage(repo) == Usage(0, 0, 0, 0, 0, ())


def test_models_that_share_half(repo: Repository, tmp_path: Path) -> None:
    shared, a, b = (CHANCE.normal(size=2048).astype(np.float32) for _ in range(3))
    for name, own in (("a", a), ("b", b)):
        commit(repo, write_model(tmp_path / name, {"shared": shared, f"own_{name}": own}), name)
    repo.tag("v1", "a")  # the same commit again: not counted twice
    found = usage(repo)
    assert [model.rev for model in found.models] == ["a", "b"]
    assert found.raw_bytes == size(tmp_path / "a") + size(tmp_path / "b")
    assert adds_up(found)
    # Raw blocks of 4096 bytes: each is stored as itself and a record header.
    for model, name in zip(found.models, "ab", strict=True):
        assert model.raw_bytes == model.unique_bytes == size(tmp_path / name)
        assert model.stored_bytes == model.raw_bytes + 5 * HEADER
        assert model.shared_bytes == 2 * (4096 + HEADER)
        assert model.base_bytes == 0
    assert found.dedup_saved_bytes == 2 * 4096
    assert found.stored_bytes == sum(m.exclusive_bytes for m in found.models) + 2 * (4096 + HEADER)
    on_disk = sum(path.stat().st_size for path in (repo.directory / "packs").iterdir())
    assert found.packs_bytes == on_disk
    assert found.stored_bytes + found.objects_bytes < on_disk
    alone = usage(repo, "b")
    assert alone.stored_bytes == alone.models[0].exclusive_bytes == alone.models[0].stored_bytes


def test_what_a_model_leans_on(repo: Repository, tmp_path: Path) -> None:
    base = CHANCE.normal(size=1024).astype(np.float32)
    tuned = base.copy()
    tuned[5] += 1
    first = commit(repo, write_model(tmp_path / "base", {"w": base}), "base")
    delta = delta_block(tuned.tobytes(), base.tobytes())
    store_blocks(repo.storage, delta)
    write_model(tmp_path / "tuned", {"w": tuned})
    tip: ObjectId = commit(repo, tmp_path / "tuned", "tuned", base="base")
    assert repo.objects.commit(tip).leans_on == first
    found = usage(repo)
    model = {one.rev: one for one in found.models}["tuned"]
    assert (model.base, model.base_rev) == (first, "base")
    assert model.base_bytes == 4096 + HEADER
    header = 72 + HEADER  # the file's header, shared by both models
    assert model.raw_bytes == 4096 + 72
    assert model.stored_bytes == delta.stored_bytes + header
    assert model.exclusive_bytes == delta.stored_bytes
    assert model.alone_bytes == model.stored_bytes + 4096 + HEADER
    assert adds_up(found)
    assert found.coding_saved_bytes > 0
    alone = usage(repo, "tuned")
    assert alone.stored_bytes == alone.models[0].exclusive_bytes == model.alone_bytes
    assert alone.models[0].base_rev is None
    assert adds_up(alone)
