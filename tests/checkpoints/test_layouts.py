"""Layouts made for an output: files, shards and index that can be checked out and loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mergepipe import Repository
from mergepipe.checkpoints.layouts import LaidTensor, write_layout
from mergepipe.dtypes import dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.huggingface import parse_index
from mergepipe.formats.safetensors import parse_header
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Blob, Commit, Safetensors, Snapshot
from mergepipe.packs.transaction import Transaction

BLOCK = 1 << 16


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Repository, Snapshot]:
    model = tmp_path / "model"
    model.mkdir()
    generator = np.random.default_rng(0)
    save_file(
        {
            f"model.layers.{layer}.w": generator.normal(size=(64, 256)).astype(np.float32)
            for layer in range(3)
        },
        model / "model.safetensors",
    )
    (model / "config.json").write_text('{"num_hidden_layers": 3}')
    (model / "tokenizer.json").write_text("{}")
    repository = Repository.init(tmp_path / "home")
    commit = repository.commit(model, message="m").commit
    return repository, repository.objects.snapshot(repository.objects.commit(commit).snapshot)


def laid(repository: Repository, snapshot: Snapshot) -> list[LaidTensor]:
    """The layers 0, 2, 1, 2 of the model as layers 0 to 3."""
    tensors = {entry.name: entry.tensor for _, entry in snapshot.named_tensors()}
    found = []
    for place, layer in enumerate((0, 2, 1, 2)):
        like = tensors[f"model.layers.{layer}.w"]
        found.append(LaidTensor(f"model.layers.{place}.w", like, repository.objects.tensor(like)))
    return found


def write(repository: Repository, tensors: list[LaidTensor], shard_bytes: int) -> Snapshot:
    snapshot = repository.objects.snapshot(_write(repository, tensors, shard_bytes))
    assert repository.fsck(read_data=True).ok
    return snapshot


def _write(repository: Repository, tensors: list[LaidTensor], shard_bytes: int) -> ObjectId:
    old = repository.objects.snapshot(
        repository.objects.commit(repository.resolve("main")).snapshot
    )
    with repository.writing(), Transaction(repository.storage) as transaction:
        identity = write_layout(
            tensors,
            {"config.json": b'{"num_hidden_layers": 4}\n', "README.md": b"# x\n"},
            [file for file in old.files if isinstance(file.content, Blob)],
            transaction,
            block_size=BLOCK,
            shard_bytes=shard_bytes,
        )
        transaction.publish()
    return identity


def test_one_file(stored: tuple[Repository, Snapshot], tmp_path: Path) -> None:
    repository, snapshot = stored
    found = write(repository, laid(repository, snapshot), 10 << 20)
    assert [file.path for file in found.files] == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    names = [entry.name for _, entry in found.named_tensors()]
    assert names == [f"model.layers.{place}.w" for place in range(4)]


def test_shards_have_an_index_and_whole_headers(
    stored: tuple[Repository, Snapshot], tmp_path: Path
) -> None:
    repository, snapshot = stored
    found = write(repository, laid(repository, snapshot), 2 * 64 * 256 * 4)
    by_path = {file.path: file for file in found.files}
    index = by_path["model.safetensors.index.json"].content
    assert isinstance(index, Blob)
    text = repository.blocks.read(repository.objects.tensor(index.data).block_ids())[0]
    places = parse_index(bytes(text), "index")
    assert places["model.layers.3.w"] == "model-00002-of-00002.safetensors"
    assert json.loads(bytes(text))["metadata"]["total_size"] == 4 * 64 * 256 * 4
    for path in set(places.values()):
        file = by_path[path]
        assert isinstance(file.content, Safetensors)
        header_blocks = repository.objects.tensor(file.content.header).block_ids()
        raw = b"".join(repository.blocks.read(header_blocks))
        header = parse_header(raw, file.size - len(raw), name=path)
        assert header.metadata == {"format": "pt"}
        for info, entry in zip(header.tensors, file.content.tensors, strict=True):
            tensor = repository.objects.tensor(entry.tensor)
            assert (info.name, info.shape) == (entry.name, tensor.shape)
            assert info.dtype == dtype_of(tensor.dtype)


def test_a_layout_of_stored_tensors_is_a_model_already(
    stored: tuple[Repository, Snapshot], tmp_path: Path
) -> None:
    repository, snapshot = stored
    identity = _write(repository, laid(repository, snapshot), 10 << 20)
    with repository.writing(), Transaction(repository.storage) as transaction:
        commit = repository.objects.put(
            Commit(identity, (), None, "a", 0, 0, "a stack of layers"), transaction
        )
        transaction.publish()
    repository.checkout(commit.hex(), to=tmp_path / "out")
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    for place, layer in enumerate((0, 2, 1, 2)):
        np.testing.assert_array_equal(
            after[f"model.layers.{place}.w"], before[f"model.layers.{layer}.w"]
        )


def test_two_tensors_of_one_name(stored: tuple[Repository, Snapshot]) -> None:
    repository, snapshot = stored
    tensors = laid(repository, snapshot)
    with pytest.raises(MergeInputError, match="two tensors"):
        _write(repository, [*tensors, tensors[0]], 10 << 20)
