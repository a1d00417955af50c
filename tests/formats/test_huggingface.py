"""Sharded checkpoints: an index must find its shards and its tensors."""

import json
from pathlib import Path

import pytest

from mergepipe.errors import IncompleteCheckpoint, MalformedFile
from mergepipe.formats.huggingface import check_shards, parse_index
from mergepipe.formats.tree import scan

INDEX = "model.safetensors.index.json"


def check(
    root: Path, weight_map: dict[str, str], names: dict[str, list[str]], at: str = ""
) -> None:
    (root / at).mkdir(exist_ok=True)
    index = {"metadata": {"total_size": 1, "x": [None, {}]}, "weight_map": weight_map}
    (root / at / INDEX).write_text(json.dumps(index))
    check_shards(scan(root), names)


def test_complete(tmp_path: Path) -> None:
    check(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, {
        "1.safetensors": ["a"], "2.safetensors": ["b", "c"],
    })  # fmt: skip
    check(tmp_path / "sub", {"a": "1.safetensors"}, {"1.safetensors": ["a"]})
    check_shards((), {})


def test_index_in_a_directory_finds_its_own_shards(tmp_path: Path) -> None:
    check(tmp_path, {"a": "1.safetensors"}, {"vae/1.safetensors": ["a"]}, at="vae")
    with pytest.raises(
        IncompleteCheckpoint, match=f"'vae/{INDEX}' names the shard '1.safetensors'"
    ):
        check(tmp_path, {"a": "1.safetensors"}, {"1.safetensors": ["a"]}, at="vae")


def test_missing_shards_and_tensors(tmp_path: Path) -> None:
    with pytest.raises(IncompleteCheckpoint, match=f"'{INDEX}' names the shard '2.st' and 1 more"):
        check(tmp_path, {"a": "1.st", "b": "2.st", "c": "3.st"}, {"1.st": ["a"]})
    with pytest.raises(IncompleteCheckpoint, match=r"'1\.st' holds the tensor 'b\\n'"):
        check(tmp_path, {"a": "1.st", "b\n": "1.st"}, {"1.st": ["a"]})
    for hostile in ("../1.st", "/1.st", "", ".", "1.st\0"):
        with pytest.raises(IncompleteCheckpoint):
            check(tmp_path, {"a": hostile}, {"1.st": ["a"]})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map":[]}',
        b'{"weight_map":{"a":1}}',
        b'{"weight_map":{}',
        b'{"weight_map":{}}x',
        b'{"weight_map":{"\xff":"a"}}',
        b'{"metadata":' + b"[" * 1_000_000,
        b'{"weight_map":' + b'{"a":' * 1_000_000,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_malformed_index(content: bytes) -> None:
    with pytest.raises(MalformedFile, match=r"'i\.json'"):
        parse_index(content, "i.json")
