"""Real clients before a real `mp serve`, with HF_ENDPOINT alone changed."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from tests.cli.conftest import ROOT
from tests.hub.conftest import WHO, Served, serving

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("huggingface_hub")


def client(hub: Served, home: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """A command of the user's, in a process of its own that knows of this hub only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=kept | settings,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub with a tiny Llama (`chat`), its tokenizer, and an adapter for it (`taught`)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clients")
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model", max_shard_size="8kB")
    words = Tokenizer(WordLevel({"[UNK]": 0, "to": 1, "be": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder / "model")
    model.save_pretrained(folder / "whole")
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder / "whole")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        folder / "adapter"
    )
    with Repository.init(folder / "zoo", who=WHO) as repository:
        repository.commit(folder / "whole", branch="chat")
        repository.commit(folder / "model", branch="sharded")
        repository.commit(folder / "adapter", branch="taught")
    with serving(folder / "zoo") as served:
        yield served


def test_models_tokenizers_and_adapters_load(zoo: Served, tmp_path: Path) -> None:
    files = zoo.folder.parent / "whole"
    done = client(
        zoo, tmp_path, Path(__file__).parent / "loading.py", "zoo/chat", files, "zoo/taught"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["same_text"]
    assert told["tokens"] == told["tokens_of_files"] == [1, 2]
    assert told["missing"] == [
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
    ]
    names = sorted(path.name for path in files.iterdir())
    assert told["files"] == names
    assert told["listed"] == [f"zoo/chat/{name}" for name in names]
    assert told["start"] == "{"
    assert told["numbers"] > 1000
    for path in files.iterdir():
        assert (Path(told["snapshot"]) / path.name).read_bytes() == path.read_bytes()


def test_the_hubs_own_command_downloads(zoo: Served, tmp_path: Path) -> None:
    command = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"
    words = ("-c", command, "download", "zoo/sharded", "--local-dir", tmp_path / "got")
    done = client(zoo, tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr
    for path in (zoo.folder.parent / "model").iterdir():
        assert (tmp_path / "got" / path.name).read_bytes() == path.read_bytes()


def test_models_are_pushed_and_uploaded(zoo: Served, tmp_path: Path) -> None:
    files = zoo.folder.parent / "model"
    done = client(zoo, tmp_path, Path(__file__).parent / "uploading.py", files)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["refused"] == "412"
    assert told["titles"][0] == "By git-lfs"
    assert told["titles"][-1] == "Upload folder using huggingface_hub"
    assert told["names"] == sorted([*(path.name for path in files.iterdir()), "big.bin"])
    assert told["big"] == 2_500_000
    assert told["sha256"] == hashlib.sha256(b"large" * 500_000).hexdigest()
    with Repository.open(zoo.folder) as repository:
        # What was pushed leans on the model that it is: nothing is kept twice.
        base = repository.branches()["sharded"]
        assert repository.commit_of("folder~3")[1].leans_on in (base, repository.branches()["chat"])
        assert repository.fsck(read_data=True).ok


def test_the_hubs_own_command_uploads(zoo: Served, tmp_path: Path) -> None:
    files = zoo.folder.parent / "model"
    command = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"
    done = client(zoo, tmp_path, "-c", command, "upload", "zoo/typed", files)
    assert done.returncode == 0, done.stderr
    with Repository.open(zoo.folder) as repository:
        for path in files.iterdir():
            content = b"".join(repository.contents.read_file("typed", path.name))
            assert content == path.read_bytes()
