"""What a new model leans on, and how deep."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError
from tests.repository.checkpoints import Raw, bf16, new_repository, write_model

ROWS, COLUMNS = 256, 128


def weights(seed: int, near: np.ndarray | None = None, step: float = 1e-3) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    return drawn * np.float32(0.02) if near is None else near + drawn * np.float32(step)


def commit(repository: Repository, folder: Path, values: np.ndarray, **options: Any) -> str:
    """Commit values as a model on a branch named after the folder; returns the branch."""
    tensor: Raw = bf16(values)
    write_model(folder, {"model.layers.0.w": tensor, "model.layers.1.w": tensor})
    repository.commit(folder, branch=folder.name, message=folder.name, **options)
    return folder.name


def base_of(repository: Repository, branch: str) -> str | None:
    """The branch whose tip a branch's commit leans on."""
    base = repository.commit_of(branch)[1].leans_on
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


def test_likeness_says_nothing_about_what_a_model_was_trained_from(tmp_path: Path) -> None:
    """Siblings before their base lean on each other; a merge on that would be wrong, and quiet."""
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        for seed, name in enumerate(("one", "two")):
            commit(repository, tmp_path / name, weights(10 + seed, near=base))
        assert base_of(repository, "two") == "one"
        commit(repository, tmp_path / "base", base)
        with pytest.raises(MergeInputError, match="nobody said what 'one', 'two'") as refused:
            repository.plan(experts=["one", "two"])
        hint = refused.value.hint or ""
        assert "mp merge one two --base REV" in hint
        assert "mp commit PATH -b one --base REV" in hint
        # What the hint says works on models that are stored already.
        for name in ("one", "two"):
            made = repository.commit(tmp_path / name, branch=name, base="base")
            assert not made.unchanged
            assert repository.commit(tmp_path / name, branch=name, base="base").unchanged
        planned = repository.plan(experts=["one", "two"])
        assert planned.plan.base == repository.commit_of("base")[1].snapshot


def test_a_branch_keeps_what_its_models_were_trained_from(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        first = weights(2, near=base)
        commit(repository, tmp_path / "base", base)
        commit(repository, tmp_path / "js", first, base="base")
        (tmp_path / "day2").mkdir()
        commit(repository, tmp_path / "day2" / "js", weights(3, near=first, step=2e-4))
        tip = repository.commit_of("js")[1]
        assert tip.trained_from == repository.resolve("base")
        assert tip.parents == (repository.resolve("js~1"),)
        assert tip.profile is not None
        profile = repository.profiles().load(tip.profile)
        assert profile.base == repository.commit_of("base")[1].snapshot


@pytest.mark.parametrize(
    ("front", "found"),
    [
        ("base_model: meta/Llama-Small", True),
        ("base_model:\n- meta/llama-small", True),
        ("base_model: meta/llama-large", False),
        ("base_model: [meta/llama-small, meta/other]", False),
        ("base_model: meta/llama-small\nbase_model_relation: merge", False),
        ("base_model: {a: [}", False),
    ],
)
def test_a_model_card_names_the_base(tmp_path: Path, front: str, found: bool) -> None:
    with new_repository(tmp_path / "repository", codec="auto") as repository:
        base = weights(1)
        commit(repository, tmp_path / "llama-small", base)
        (tmp_path / "tuned").mkdir()
        (tmp_path / "tuned" / "README.md").write_text(f"---\n{front}\n---\n# Tuned\n")
        commit(repository, tmp_path / "tuned", weights(2, near=base))
        trained = repository.commit_of("tuned")[1].trained_from
        assert trained == (repository.resolve("llama-small") if found else None)


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
            for _, entry in snapshot.named_tensors():
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
