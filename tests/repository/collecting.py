"""Models that a gc keeps or takes, and how tests run one."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mergepipe.api import Repository
from mergepipe.repository.gc import Collected, collect
from mergepipe.repository.refs import ANY

from .checkpoints import commit, write_model

CHANCE = np.random.default_rng(5)


def run(repo: Repository, **options: Any) -> Collected:
    return collect(
        repo.local,
        repo.storage,
        repo.objects,
        repo.refs,
        repo.directory / "store.lock",
        lock_timeout_s=0.2,
        **options,
    )


def weights(count: int = 20_000) -> np.ndarray:
    return CHANCE.normal(size=count).astype(np.float32)


def model(tmp_path: Path, name: str, w: np.ndarray | None = None) -> Path:
    # Tensors of other names: none of these models leans on another.
    return write_model(tmp_path / name, {name: weights() if w is None else w}, config_json=name)


def content(repo: Repository, revision: str, tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / f"out-{os.urandom(4).hex()}"
    repo.checkout(revision, to=out)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def packs_bytes(repo: Repository) -> int:
    return sum(path.stat().st_size for path in (repo.directory / "packs").iterdir())


def forget(repo: Repository, branch: str) -> None:
    """Remove a branch with its log, which would hold what it named."""
    repo.refs.delete(f"refs/heads/{branch}", expected=ANY, who=repo.signature())


def sparse(repo: Repository, tmp_path: Path) -> None:
    """A dead pack, and one that is mostly dead."""
    shared = weights(6000)
    commit(repo, write_model(tmp_path / "a", {"w": shared, "x": weights(30_000)}), "a")
    commit(repo, write_model(tmp_path / "b", {"v": shared}), "b")
    commit(repo, model(tmp_path, "c"), "c")
    forget(repo, "a")
    forget(repo, "c")
