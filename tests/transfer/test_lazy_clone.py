"""Lazy clones over every kind of remote: what is read moves, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.api.pulling import fetch
from mergepipe.errors import RemoteUnreachable, UsageError
from mergepipe.lazy.store import LazyByteStore
from mergepipe.transfer.push_refs import PushOptions
from tests.repository.checkpoints import WHO, bf16, commit, new_repository, write_model
from tests.transfer.test_real_remotes import PLACES

EXPERTS = ["origin/one", "origin/two", "origin/three"]
EVERYTHING = PushOptions(all_branches=True, tags=True)


CONFIGS_BYTES = 4 << 10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three fine-tunes of it."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(5)
    base = {f"layer.{n}": random.normal(0, 0.1, (256, 512)) for n in range(6)}
    write_model(folder / "main", {name: bf16(value) for name, value in base.items()})
    for branch in ("one", "two", "three"):
        tuned = {k: bf16(v + random.normal(0, 1e-3, v.shape)) for k, v in base.items()}
        write_model(folder / branch, tuned, config_json=json.dumps({"name": branch}))
    return folder


@pytest.fixture(scope="module")
def origin(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with new_repository(tmp_path_factory.mktemp("origin"), 16 << 10, "auto") as repository:
        commit(repository, models / "main", "main")
        for branch in ("one", "two", "three"):
            commit(repository, models / branch, branch, "main")
        yield repository


def received(repository: Repository) -> int:
    assert isinstance(repository.store, LazyByteStore)
    return repository.store.received_bytes


@pytest.mark.parametrize("kind", PLACES)
def test_everything_works_and_little_moves(
    kind: str, origin: Repository, models: Path, tmp_path: Path
) -> None:
    with PLACES[kind](tmp_path) as (url, credentials):
        origin.push(url, EVERYTHING, credentials=credentials)
        found = clone(url, tmp_path / "lazy", lazy=True, credentials=credentials, who=WHO)
        assert (found.lazy, found.files) == (True, False)
        assert found.fetch.fetched.blocks == 0
        assert found.fetch.fetched.commits == 4
        path = tmp_path / "lazy"
        with Repository.open(path, who=WHO, credentials=lambda _: credentials) as repository:
            assert len(list(repository.log("origin/one"))) == 1
            assert repository.fsck(read_data=True).ok
            raw = sum(file.size for file in repository.snapshot_of("origin/one").files)
            assert received(repository) == 0

            # One tensor of six, with its base.
            repository.tensor("origin/one", "layer.2")
            stored = repository.usage(["origin/one"]).models[0].alone_bytes
            assert 0 < received(repository) < stored / 5

            # A merge receives what it reads: here of the base too, as none of it is here yet.
            before = received(repository)
            plan = repository.plan(
                base="origin/main",
                experts=EXPERTS,
                method="ties",
                budget="raw:10%",
                densities=[0.3] * 3,
            )
            # Profiles came with the history; configs tell codes of quantized models from weights.
            assert received(repository) - before < CONFIGS_BYTES
            before = received(repository)
            merged = repository.merge(plan, branch="merged")
            read = merged.expert_bytes_read + merged.base_bytes_read
            assert received(repository) - before <= read
            assert merged.expert_bytes_read <= 0.11 * 3 * raw
            before = received(repository)
            assert repository.replay("merged").same
            assert received(repository) == before

            repository.checkout("origin/two", to=tmp_path / "two")
            for name in ("model.safetensors", "config.json"):
                assert (tmp_path / "two" / name).read_bytes() == (
                    models / "two" / name
                ).read_bytes()

            # What is made here goes back, and what is new there is promised.
            repository.push("origin", PushOptions(("merged",)), credentials=credentials)
        again = clone(url, tmp_path / "whole", branch="merged", credentials=credentials, who=WHO)
        assert again.files
        with Repository.open(tmp_path / "whole", who=WHO) as repository:
            assert repository.fsck(read_data=True).ok


def test_with_the_base_here_a_tenth_of_the_experts_moves(
    origin: Repository, tmp_path: Path
) -> None:
    clone(str(origin.directory), tmp_path / "lazy", lazy=True, who=WHO)
    with Repository.open(tmp_path / "lazy", who=WHO) as repository:
        repository.checkout("origin/main", to=tmp_path / "base")
        raw = 3 * sum(file.size for file in repository.snapshot_of("origin/one").files)
        before = received(repository)
        plan = repository.plan(base="origin/main", experts=EXPERTS, method="ties", budget="raw:10%")
        repository.merge(plan, branch="merged")
        assert 0.05 * raw < received(repository) - before <= 0.11 * raw


def test_a_fetch_promises_what_is_new(models: Path, tmp_path: Path) -> None:
    with new_repository(tmp_path / "origin", 16 << 10, "auto") as origin:
        commit(origin, models / "main", "main")
        clone(str(tmp_path / "origin"), tmp_path / "lazy", lazy=True, who=WHO)
        commit(origin, models / "one", "one", "main")
        with Repository.open(tmp_path / "lazy", who=WHO) as repository:
            found = fetch(repository).fetched
            assert (found.commits, found.blocks) == (1, 0)
            assert received(repository) == 0
            assert fetch(repository).fetched.bytes_received == 0
            repository.checkout("origin/one", to=tmp_path / "one")
        assert (tmp_path / "one/model.safetensors").read_bytes() == (
            models / "one/model.safetensors"
        ).read_bytes()


def test_a_lazy_clone_of_a_lazy_clone(models: Path, tmp_path: Path) -> None:
    with new_repository(tmp_path / "origin", 16 << 10, "auto") as origin:
        commit(origin, models / "main", "main")
    clone(str(tmp_path / "origin"), tmp_path / "one", lazy=True, who=WHO)
    clone(str(tmp_path / "one"), tmp_path / "two", lazy=True, who=WHO)
    with Repository.open(tmp_path / "two", who=WHO) as repository:
        assert repository.tensor("origin/main", "layer.1").shape == (256, 512)
    with Repository.open(tmp_path / "one", who=WHO) as repository:
        repository.tensor("main", "layer.1")
        assert received(repository) == 0  # it came through here


def test_the_lazy_remote_stays_while_it_is_needed(origin: Repository, tmp_path: Path) -> None:
    clone(str(origin.directory), tmp_path / "lazy", lazy=True, who=WHO)
    from mergepipe.api import remotes

    with Repository.open(tmp_path / "lazy", who=WHO) as repository:
        with pytest.raises(UsageError, match="lazy"):
            remotes.remove(repository, "origin")
        repository.configure("remote.origin.url", str(tmp_path / "elsewhere"))
        with pytest.raises(RemoteUnreachable, match="origin"):
            repository.tensor("origin/one", "layer.0")
