"""Real clients before a real `mp serve`, with HF_ENDPOINT alone changed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mergepipe.api import Repository
from tests.hub.conftest import WHO, Served, client, serving

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("huggingface_hub")


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


@pytest.fixture(scope="module")
def told(zoo: Served, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What clients saw who loaded, and then uploaded, in one process: it takes long to begin."""
    both = (
        "import sys; from tests.hub import loading, uploading; "
        "loading.main(*sys.argv[1:5]); uploading.main(sys.argv[5])"
    )
    files = zoo.folder.parent
    words = ("zoo/chat", files / "whole", "zoo/taught", "zoo/sharded", files / "model")
    done = client(zoo, tmp_path_factory.mktemp("home"), "-c", both, *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_models_tokenizers_and_adapters_load(zoo: Served, told: list[Any]) -> None:
    files, found = zoo.folder.parent / "whole", told[0]
    assert found["same_text"]
    assert found["same_text_by_vllms_calls"]
    assert found["tokens"] == found["tokens_of_files"] == [1, 2]
    assert found["missing"] == [
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
    ]
    names = sorted(path.name for path in files.iterdir())
    assert found["files"] == names
    assert found["listed"] == [f"zoo/chat/{name}" for name in names]
    assert found["start"] == "{"
    assert found["numbers"] > 1000
    for path in files.iterdir():
        assert (Path(found["snapshot"]) / path.name).read_bytes() == path.read_bytes()


def test_the_hubs_own_command_downloads(zoo: Served, tmp_path: Path) -> None:
    command = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"
    words = ("-c", command, "download", "zoo/sharded", "--local-dir", tmp_path / "got")
    done = client(zoo, tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr
    for path in (zoo.folder.parent / "model").iterdir():
        assert (tmp_path / "got" / path.name).read_bytes() == path.read_bytes()


def test_models_are_pushed_and_uploaded(zoo: Served, told: list[Any]) -> None:
    files, found = zoo.folder.parent / "model", told[1]
    assert found["refused"] == "412"
    assert found["titles"][0] == "Something large"
    assert found["titles"][-1] == "Upload folder using huggingface_hub"
    assert found["names"] == sorted([*(path.name for path in files.iterdir()), "big.bin"])
    assert found["big"] == 2_500_000
    assert found["sha256"] == hashlib.sha256(b"large" * 500_000).hexdigest()
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
