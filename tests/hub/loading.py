"""Loads models as its users would, told of the hub by HF_ENDPOINT alone. Run as a process.

loading.py ID FOLDER ADAPTER_ID SHARDED_ID: a model whose files are also in FOLDER, an adapter for
it, and the same model in shards
"""

import fnmatch
import json
import sys
from pathlib import Path

import torch
import transformers
from huggingface_hub import (
    HfFileSystem,
    get_safetensors_metadata,
    hf_hub_download,
    list_repo_files,
    snapshot_download,
)
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def written_by(model: torch.nn.Module) -> list[int]:
    """Token ids that a model goes on with."""
    start = torch.tensor([[1, 2, 3]])
    return model.generate(start, max_new_tokens=8, do_sample=False)[0].tolist()  # type: ignore


def loaded_as_vllm_does(name: str) -> torch.nn.Module:
    """A model by the calls that vLLM's default loader makes, in their order.

    The class that `architectures` names, the pattern that files of the hub answer to, a snapshot
    of these alone, and tensors one by one out of safetensors files.
    """
    config = AutoConfig.from_pretrained(name, revision="main")
    model: torch.nn.Module = getattr(transformers, config.architectures[0])(config)
    there = HfFileSystem().ls(name, detail=False, revision="main")
    patterns = ("*.safetensors", "*.bin")
    pattern = next(each for each in patterns if fnmatch.filter(map(str, there), each))
    folder = snapshot_download(name, allow_patterns=[pattern], revision="main")
    for path in sorted(Path(folder).glob(pattern)):
        with safe_open(path, framework="pt") as weights:
            for tensor in weights.keys():  # noqa: SIM118 (no mapping)
                model.state_dict()[tensor].copy_(weights.get_tensor(tensor))
    return model


def main(name: str, folder: str, adapter: str, sharded: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(name, revision="main")
    local = AutoModelForCausalLM.from_pretrained(folder)
    pairs = zip(model.state_dict().items(), local.state_dict().items(), strict=True)
    assert all(one == other and torch.equal(a, b) for (one, a), (other, b) in pairs)
    tokens = AutoTokenizer.from_pretrained(name)("to be")["input_ids"]
    adapted = PeftModel.from_pretrained(model, adapter)
    missing = []
    for asked, path, revision, error in (
        ("zoo/none", "config.json", "main", RepositoryNotFoundError),
        (name, "none", "main", RemoteEntryNotFoundError),
        (name, "config.json", "none", RevisionNotFoundError),
    ):
        try:
            hf_hub_download(asked, path, revision=revision)
        except error:
            missing.append(error.__name__)
    files = HfFileSystem()
    with files.open(f"{name}/model.safetensors", "rb") as opened:
        opened.seek(8)
        start = opened.read(1).decode()
    print(
        json.dumps(
            {
                "same_text": written_by(local) == written_by(adapted.unload()),
                "same_text_by_vllms_calls": written_by(loaded_as_vllm_does(sharded))
                == written_by(local),
                "tokens": tokens,
                "tokens_of_files": AutoTokenizer.from_pretrained(folder)("to be")["input_ids"],
                "missing": missing,
                "files": list_repo_files(name),
                "numbers": sum(get_safetensors_metadata(name).parameter_count.values()),
                "snapshot": snapshot_download(name),
                "listed": files.ls(name, detail=False),
                "start": start,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
