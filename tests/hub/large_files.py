"""Uploads large files with the hub's client, told of the hub by HF_ENDPOINT alone. A process.

large_files.py ID FOLDER MODE: `MODE` is `xet`, or `lfs` for a client that has no hf_xet
"""

import importlib.metadata
import json
import sys

_version = importlib.metadata.version


def _version_without_xet(distribution_name: str) -> str:
    if distribution_name.replace("-", "_") == "hf_xet":
        raise importlib.metadata.PackageNotFoundError(distribution_name)
    return _version(distribution_name)


def main(model: str, folder: str, mode: str) -> None:
    if mode == "lfs":
        sys.modules["hf_xet"] = None  # type: ignore[assignment]
        importlib.metadata.version = _version_without_xet
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils._runtime import is_xet_available

    assert is_xet_available() is (mode == "xet")
    api = HfApi()
    api.create_repo(model, exist_ok=True)
    first = api.upload_folder(repo_id=model, folder_path=folder)
    same = api.upload_folder(repo_id=model, folder_path=folder)
    later = api.upload_file(
        repo_id=model, path_in_repo="more/bytes.bin", path_or_fileobj=b"abc" * 500_000
    )
    listed = api.list_repo_tree(model, recursive=True)
    stored = {each.path: each for each in listed if isinstance(each, RepoFile)}
    print(
        json.dumps(
            {
                "same": first.oid == same.oid,
                "later": later.oid,
                "sha256": {
                    path: each.lfs["sha256"]
                    for path, each in stored.items()
                    if each.lfs is not None
                },
                "downloaded": {path: hf_hub_download(model, path) for path in stored},
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
