"""Which files of a checkpoint are its weights."""

import json

import pytest

from mergepipe.errors import IncompleteCheckpoint
from mergepipe.formats.weight_files import WeightFiles, sort_weight_files

NAMES = ("a", "b")
INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def sort(*paths: str, index: dict[str, str] | None = None, at: str = INDEX) -> WeightFiles:
    """Files by path; what is left out has a name of its own in each file but `!` ones."""
    tensors = {path: NAMES for path in paths if path.endswith(".safetensors")}
    files = {at: json.dumps({"weight_map": index}).encode()} if index is not None else {}
    return sort_weight_files(tensors, {*paths, *files}, files.get)


def test_the_index_decides() -> None:
    index = dict(zip(NAMES, SHARDS, strict=True))
    found = sort(*SHARDS, "consolidated.safetensors", "model.safetensors", index=index)
    assert found.components == {"": SHARDS}
    [(reason, paths)] = found.left_out_by_reason.items()
    assert reason == f"{INDEX} names the weights, and not these"
    assert paths[0] == "consolidated.safetensors"
    assert len(paths) == 2
    unusual = sort("x.safetensors", "y.safetensors", index={"a": "y.safetensors"})
    assert unusual.components == {"": ("y.safetensors",)}
    at = "unet/diffusion_pytorch_model.safetensors.index.json"
    found = sort("unet/p.safetensors", "unet/q.safetensors", index={"a": "q.safetensors"}, at=at)
    assert found.components == {"unet/": ("unet/q.safetensors",)}


@pytest.mark.parametrize(
    ("chosen", "others"),
    [
        (("model.safetensors",), ("pytorch_model.safetensors", "consolidated.safetensors")),
        (("model.safetensors",), ("model.fp16.safetensors", "consolidated.00.safetensors")),
        (SHARDS, ("consolidated.safetensors", "model.fp16-00001-of-00001.safetensors")),
        (("unet/diffusion_pytorch_model.safetensors",),
         ("unet/diffusion_pytorch_model.fp16.safetensors",)),
        (("x.safetensors", "y.v2.safetensors"), ("consolidated.safetensors",)),
        (("consolidated.safetensors",), ()),
        (("model.fp16.safetensors",), ()),
    ],
)  # fmt: skip
def test_one_set_of_weights(chosen: tuple[str, ...], others: tuple[str, ...]) -> None:
    found = sort(*chosen, *others)
    assert list(found.components.values()) == [chosen]
    assert set(found.left_out) == set(others)


def test_a_missing_shard_is_told_without_an_index() -> None:
    three = [f"unet/x-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert list(sort(*three).components) == ["unet/"]
    with pytest.raises(IncompleteCheckpoint, match="is one of 3 files, and number 2 is not there"):
        sort(three[0], three[2])
    assert sort("x-00000-of-00002.safetensors", "x-00001-of-00002.safetensors").components


def test_directories() -> None:
    model = "model.safetensors"
    inside = (
        *("checkpoint-100/", "run/checkpoint-2/", "global_step5/", "original/", "epoch_1/"),
        "copy/",
    )
    found = sort(model, *(directory + model for directory in inside))
    assert found.components == {"": (model,)}
    assert len(found.left_out) == len(inside)
    pipeline = [f"{part}/{model}" for part in ("unet", "vae", "text_encoder")]
    found = sort("model_index.json", *pipeline)
    assert sorted(found.components) == ["text_encoder/", "unet/", "vae/"]
    tensors = {model: ("a", "b"), "2_Dense/model.safetensors": ("linear.weight",)}
    found = sort_weight_files(tensors, set(tensors), lambda path: None)
    assert sorted(found.components) == ["", "2_Dense/"]
    found = sort(model, "speech/adapter_model.safetensors", "speech/adapter_config.json",
                 "modules.json")  # fmt: skip
    assert list(found.components) == [""]
    assert list(found.adapters) == ["speech/"]
