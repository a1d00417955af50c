"""Checkpoints as they are found: which of their files are merged, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.mergekit.test_command import LINEAR, Mp, models, mp, recipe, stored

__all__ = ["models", "mp"]
WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("command", [("merge", "-b", "merged"), ("plan",)])
@pytest.mark.parametrize("how", ["recipe", "revisions", "paths"])
def test_codes_are_no_weights(models: Path, mp: Mp, command: tuple[str, ...], how: str) -> None:
    for name in ("math", "code"):
        content = load_file(models / name / WEIGHTS)
        key = "model.layers.0.mlp.up_proj.weight"
        packed = content.pop(key).astype(np.int8)
        save_file({**content, key: packed, key.removesuffix("weight") + "SCB": packed[:, 0] * 1.0},
                  models / name / WEIGHTS)  # fmt: skip
    if how == "recipe":
        arguments: tuple[object, ...] = ("--recipe", recipe(models, LINEAR))
    elif how == "paths":
        arguments = (models / "math", models / "code", "--method", "linear")
    else:
        for name in ("math", "code"):
            mp("commit", models / name, "-b", name)
        arguments = ("math", "code", "--method", "linear")
    before = stored()
    refused = mp(*command, *map(str, arguments), expect=13)
    assert "is quantized (bitsandbytes)" in refused.err
    assert "holds codes, not weights" in refused.err
    assert stored() == before


def test_a_second_set_of_weights_is_left_out(models: Path, mp: Mp, tmp_path: Path) -> None:
    shutil.copytree(models / "math", models / "math" / "checkpoint-10")
    content = load_file(models / "math" / WEIGHTS)
    save_file({"tok_embeddings.weight": content["model.norm.weight"]},
              models / "math" / "consolidated.safetensors")  # fmt: skip
    made = mp("merge", "--recipe", recipe(models, LINEAR), "-b", "recipe", "--out", tmp_path / "a")
    for left in ("checkpoint-10/model.safetensors", "consolidated.safetensors"):
        assert f"math: left out: {left}: a" in made.err
    for name in ("math", "code"):
        mp("commit", models / name, "-b", name)
    plain = ("math", "code", "--method", "linear", "--weight", "0.75,0.25")
    made = mp("merge", *plain, "-b", "plain", "--out", tmp_path / "b")
    assert "left out: consolidated.safetensors" in made.err
    expected = load_file(tmp_path / "a" / WEIGHTS)
    found = load_file(tmp_path / "b" / WEIGHTS)
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in expected.items()
    }
    for out in ("a", "b"):
        assert sorted(path.name for path in (tmp_path / out).rglob("*.safetensors")) == [WEIGHTS]
    assert "left out" in mp("merge", *plain, "--dry-run").err
