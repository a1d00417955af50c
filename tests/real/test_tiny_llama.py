"""A real base model and real fine-tunes of it, in and out of a repository, bit for bit.

The models lie beside the project, not in it; without them these tests are skipped.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors

from mergepipe.api import Repository
from mergepipe.repository.reflog import Signature

MODELS = Path(__file__).parents[3] / "shared" / "data" / "tiny-llama"
NAMES = sorted(entry.parent.name for entry in MODELS.glob("*/model.safetensors"))
WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 0)

pytestmark = pytest.mark.skipif("base" not in NAMES, reason=f"no models in {MODELS}")


def digests(root: Path) -> dict[str, str]:
    """What `sha256sum` prints of every file, `.mergepipe` left out."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".mergepipe" not in path.parts
    }


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Every model on a branch of its name; experts lean on the base."""
    root = tmp_path_factory.mktemp("llama") / "repo"
    with Repository.init(root, who=WHO) as repository:
        repository.commit(MODELS / "base", branch="base", message="base")
        for name in NAMES:
            if name != "base":
                repository.commit(MODELS / name, branch=name, base="base", message=name)
        yield repository


@pytest.mark.parametrize("name", NAMES)
def test_every_file_comes_back(repo: Repository, name: str, tmp_path: Path) -> None:
    expected = digests(MODELS / name)
    assert "model.safetensors" in expected
    repo.checkout(name, to=tmp_path / "out")
    assert digests(tmp_path / "out") == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_second_commit_adds_no_block(repo: Repository, name: str) -> None:
    packs = set((repo.directory / "packs").iterdir())
    again = repo.commit(MODELS / name, branch=f"again/{name}", message="again")
    assert again.new_blocks == 0
    assert not again.unchanged
    assert again.snapshot == repo.commit_of(name)[1].snapshot
    added = set((repo.directory / "packs").iterdir()) - packs
    assert sum(pack.stat().st_size for pack in added) < 4096  # one commit object
    assert repo.commit(MODELS / name, branch=f"again/{name}").unchanged


def test_the_worktree_follows_switch(repo: Repository) -> None:
    repo.checkout("base")
    for name in [*NAMES, "base"]:
        repo.switch(name)
        assert repo.refs.head().short_branch == name
        assert digests(repo.worktree.root) == digests(MODELS / name)
        assert repo.status() == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_single_tensor_is_what_safetensors_loads(
    repo: Repository, name: str, tmp_path: Path
) -> None:
    raw = (MODELS / name / "model.safetensors").read_bytes()
    held = dict(safetensors.deserialize(raw))
    chosen = [min(held), max(held), next(n for n in sorted(held) if "mlp" in n)]
    for tensor in chosen:
        out = tmp_path / f"{tensor}.safetensors"
        assert repo.checkout(name, to=out, tensors=[tensor]) == out
        assert dict(safetensors.deserialize(out.read_bytes())) == {tensor: held[tensor]}


def test_experts_share_what_they_did_not_change(repo: Repository) -> None:
    """Files that fine-tuning left alone (the tokenizer) are stored once for all models."""
    entries = [
        entry
        for name in NAMES
        for entry in repo.snapshot_of(name).files
        if entry.path == "tokenizer.json"
    ]
    assert len(entries) == len(NAMES)
    assert len({entry.content for entry in entries}) == 1
