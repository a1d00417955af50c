"""Models named by their paths: what headers say of them is said before anything is imported."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError
from tests.mergekit.checkpoints import weights, write_checkpoint
from tests.mergekit.toys import llama_config


@pytest.mark.parametrize(
    ("tied", "head", "width", "said"),
    [
        (False, False, 8, "output embeddings of its own"),
        (True, True, 8, "lacks"),
        (True, False, 16, "has shape"),
    ],
)
def test_what_does_not_fit_is_not_imported(
    tmp_path: Path, tied: bool, head: bool, width: int, said: str
) -> None:
    config = llama_config(2, vocab_size=32, tie_word_embeddings=tied)
    config["architectures"] = ["LlamaForCausalLM"]
    base = write_checkpoint(tmp_path / "base", weights(1, 2, head=head), config)
    other = weights(2, 2, hidden=width, head=False)
    expert = write_checkpoint(tmp_path / "expert", other, config)
    with Repository.init(tmp_path / "repository") as repository:
        with pytest.raises(MergeInputError, match=said):
            repository.plan(base=str(base), experts=[str(expert)])
        assert repository.imported_bytes == 0
        assert list(repository.branches()) == []


def test_integers_that_are_alike_are_no_difference(tmp_path: Path) -> None:
    config = llama_config(2, vocab_size=32)
    paths = []
    for seed, name in enumerate(("base", "one", "two")):
        content = {**weights(seed, 2), "model.counts": np.arange(8, dtype=np.float32)}
        path = write_checkpoint(tmp_path / name, content, config) / "model.safetensors"
        save_file({**content, "model.counts": np.arange(8)}, path, {"format": "pt"})
        paths.append(str(path.parent))
    with Repository.init(tmp_path / "repository") as repository:
        repository.plan(base=paths[0], experts=paths[1:2])
        assert repository.imported_bytes
        repository.plan(base=paths[0], experts=paths[1:])  # some are stored
