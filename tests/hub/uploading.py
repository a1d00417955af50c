"""Uploads models as their makers would, told of the hub by HF_ENDPOINT alone. Run as a process.

uploading.py FOLDER: a sharded Llama with its tokenizer
"""

import json
import sys
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.push_to_hub("zoo/pushed", commit_message="Push it")
    AutoTokenizer.from_pretrained(folder).push_to_hub("zoo/pushed")
    again = AutoModelForCausalLM.from_pretrained("zoo/pushed")
    pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)

    api = HfApi()
    api.create_repo("zoo/folder", exist_ok=True)
    made = api.upload_folder(repo_id="zoo/folder", folder_path=folder)
    same = api.upload_folder(repo_id="zoo/folder", folder_path=folder)
    assert made.oid == same.oid
    api.upload_file(repo_id="zoo/folder", path_in_repo="note.txt", path_or_fileobj=b"hello")
    api.delete_file("note.txt", "zoo/folder")
    refused = ""
    try:
        api.create_commit(
            "zoo/folder",
            [CommitOperationAdd("late.txt", b"late")],
            commit_message="late",
            parent_commit=made.oid,
        )
    except HfHubHTTPError as error:
        refused = str(error.response.status_code)

    big = CommitOperationAdd("big.bin", b"large" * 500_000)
    api.create_commit("zoo/folder", [big], commit_message="Something large")
    [stored] = api.get_paths_info("zoo/folder", "big.bin")
    assert isinstance(stored, huggingface_hub.hf_api.RepoFile)
    sha256 = None if stored.lfs is None else stored.lfs["sha256"]
    print(
        json.dumps(
            {
                "refused": refused,
                "titles": [each.title for each in api.list_repo_commits("zoo/folder")],
                "names": api.list_repo_files("zoo/folder"),
                "big": Path(huggingface_hub.hf_hub_download("zoo/folder", "big.bin"))
                .stat()
                .st_size,
                "sha256": sha256,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
