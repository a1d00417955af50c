"""What a new model leans on, and how deep."""

from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from tests.repository.checkpoints import Raw, bf16, new_repository, write_model

ROWS, COLUMNS = 256, 128


def weights(seed: int, near: np.ndarray | None = None, step: float = 1e-3) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    return drawn * np.float32(0.02) if near is None else near + drawn * np.float32(step)


def commit(repository: Repository, folder: Path, values: np.ndarray, **options: str) -> str:
    """Commit values as a model on a branch named after the folder; returns the branch."""
    tensor: Raw = bf16(values)
    write_model(folder, {"model.layers.0.w": tensor, "model.layers.1.w": tensor})
    repository.commit(folder, branch=folder.name, message=folder.name, **options)
    return folder.name


def base_of(repository: Repository, branch: str) -> str | None:
    """The branch whose tip a branch's commit leans on."""
    base = repository.commit_of(branch)[1].base
    names = {at: name for name, at in repository.refs.list("refs/heads/").items()}
    return None if base is None else names[base].removeprefix("refs/heads/")


def test_the_nearest_tip_is_the_base(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        one, other = weights(1), weights(2)
        commit(repository, tmp_path / "one", one)
        commit(repository, tmp_path / "other", other)
        commit(repository, tmp_path / "tuned", weights(3, near=other))
        assert base_of(repository, "one") is None
        assert base_of(repository, "other") is None, "strangers do not lean on each other"
        assert base_of(repository, "tuned") == "other"


def test_a_sibling_is_not_preferred_to_the_base(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        commit(repository, tmp_path / "base", base)
        for seed in range(5):
            commit(repository, tmp_path / f"tuned{seed}", weights(10 + seed, near=base))
            assert base_of(repository, f"tuned{seed}") == "base"


def test_a_copy_leans_on_what_the_original_leans_on(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        tuned = weights(2, near=base)
        commit(repository, tmp_path / "base", base)
        commit(repository, tmp_path / "tuned", tuned)
        commit(repository, tmp_path / "copy", tuned)
        assert base_of(repository, "copy") == "base"
        found = [repository.commit_of(name)[1] for name in ("tuned", "copy")]
        assert found[0].snapshot == found[1].snapshot
        assert found[0].profile == found[1].profile


def test_chains_are_as_long_as_the_settings_allow(tmp_path: Path) -> None:
    """A line of fine-tunes of fine-tunes: every block decodes through at most max_chain deltas."""
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        values = weights(1)
        before = commit(repository, tmp_path / "m0", values)
        for step in range(1, 6):
            values = weights(10 + step, near=values, step=2e-4)
            before = commit(repository, tmp_path / f"m{step}", values, base=before)
        lengths = []
        for step in range(6):
            snapshot = repository.snapshot_of(f"m{step}")
            for file in snapshot.files:
                for entry in file.content.tensors:
                    blocks = repository.objects.tensor(entry.tensor).block_ids()
                    lengths += [len(repository.blocks.chain(block)) - 1 for block in blocks]
        assert max(lengths) == repository.config.store.max_chain == 2
        repository.checkout("m5", to=tmp_path / "out")
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "m5" / "model.safetensors").read_bytes()


def test_a_resized_vocabulary_pairs_the_rows_that_are_there(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        commit(repository, tmp_path / "base", base)
        tuned = weights(2, near=base, step=2e-4)
        longer = np.concatenate([tuned, weights(3)[:10]])
        result = _stored(repository, tmp_path / "longer", longer)
        same = _stored(repository, tmp_path / "same", weights(4, near=base, step=2e-4))
        assert result < same + 1.2 * longer[ROWS:].size * 2 * 2
        repository.checkout("longer", to=tmp_path / "out")
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "longer" / "model.safetensors").read_bytes()


def _stored(repository: Repository, folder: Path, values: np.ndarray) -> int:
    """Bytes of block records that a commit added, its profile and objects left out."""
    commit(repository, folder, values, base="base")
    return repository.usage([folder.name]).models[0].stored_bytes
