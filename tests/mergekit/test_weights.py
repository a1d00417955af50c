"""Checkpoints as they are found: which of their files are merged, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

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
        assert f"'math': left out: {left}: a" in made.err
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


def test_buffers_that_some_models_have(models: Path, mp: Mp, tmp_path: Path) -> None:
    """An old transformers wrote them (llama.cpp #7051): they follow from the config."""
    content = load_file(models / "code" / WEIGHTS)
    old = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.arange(4.0) for n in range(4)}
    save_file({**content, **old, "position_ids": np.arange(8)[None]}, models / "code" / WEIGHTS)
    turned = LINEAR.replace("math", "x").replace("code", "math").replace("x", "code")
    for place, text in (("out1", LINEAR), ("out2", turned)):
        made = mp("merge", "--recipe", recipe(models, text), "-b", "r", "--out", tmp_path / place)
        assert "'position_ids' and 4 more, which another model lacks: left out" in made.err
        assert list(load_file(tmp_path / place / WEIGHTS)) == list(content)
    for name in ("math", "code"):
        mp("commit", models / name, "-b", name)
    for first, second, count in (("math", "code", 0), ("code", "math", 5)):
        out = tmp_path / first
        mp("merge", first, second, "--method", "linear", "-b", "plain", "--out", out)
        assert len(load_file(out / WEIGHTS)) == len(content) + count


def write_pipeline(directory: Path, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Components as diffusers saves them; their tensors have the same names."""
    source = np.random.default_rng(seed)
    stems = {"unet": "diffusion_pytorch_model", "text_encoder": "model", "text_encoder_2": "model"}
    found = {}
    for component, stem in stems.items():
        found[f"{component}/{stem}.safetensors"] = {
            f"layers.{n}.q_proj.weight": source.standard_normal((8, 8)).astype(np.float32)
            for n in range(2)
        }
        (directory / component).mkdir(parents=True)
        save_file(found[f"{component}/{stem}.safetensors"],
                  directory / component / f"{stem}.safetensors", {"format": "pt"})  # fmt: skip
        (directory / component / "config.json").write_text('{"_class_name": "X"}\n')
    (directory / "model_index.json").write_text("{}")
    (directory / "scheduler").mkdir()
    (directory / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "Euler"}\n')
    return found


@pytest.mark.parametrize("how", ["recipe", "plain", "sharded"])
def test_a_pipeline_is_merged_component_by_component(
    models: Path, mp: Mp, tmp_path: Path, how: str
) -> None:
    math, code = (write_pipeline(models / name, seed) for seed, name in enumerate(("p", "q")))
    text = LINEAR.replace("math", "p").replace("code", "q")
    out = tmp_path / "out"
    if how == "plain":
        plain = (models / "p", models / "q", "--method", "linear", "--weight", "0.75,0.25")
        mp("merge", *plain, "-b", "merged", "--out", out)
    else:
        size = ("--out-shard-size", "4KiB") if how == "sharded" else ()
        mp("merge", "--recipe", recipe(models, text), "-b", "merged", "--out", out, *size)
    assert {str(path.relative_to(out)) for path in out.rglob("*.safetensors")} == set(math)
    for path, content in math.items():
        made = load_file(out / path)
        assert list(made) == list(content)
        for name, values in content.items():
            exact = 0.75 * values.astype(np.float64) + 0.25 * code[path][name]
            np.testing.assert_allclose(made[name], exact, rtol=2e-7, atol=1e-7)
    assert (out / "unet" / "config.json").read_text() == '{"_class_name": "X"}\n'
    assert not (out / "config.json").exists()
    kept = (out / "scheduler" / "scheduler_config.json").read_text()
    assert kept == '{"_class_name": "Euler"}\n'
    sliced = """merge_method: passthrough
slices:
- sources: [{model: p, layer_range: [0, 1]}]
"""
    refused = mp("merge", "--recipe", recipe(models, sliced), "-b", "s", expect=13)
    assert "slices and modules are of one model, and 'p' is a pipeline of several" in refused.err


def test_modules_beside_a_model(models: Path, mp: Mp, tmp_path: Path) -> None:
    """The Dense module of a sentence transformer (mergekit #286, #577)."""
    dense = {name: {"linear.weight": np.full((2, 8), at, np.float32)} for name, at in
             (("math", 1.0), ("code", 5.0))}  # fmt: skip
    for name, content in dense.items():
        (models / name / "2_Dense").mkdir()
        save_file(content, models / name / "2_Dense" / WEIGHTS, {"format": "pt"})
        (models / name / "modules.json").write_text("[]")
    mp("merge", "--recipe", recipe(models, LINEAR), "-b", "merged", "--out", tmp_path / "out")
    made = load_file(tmp_path / "out" / "2_Dense" / WEIGHTS)
    assert (made["linear.weight"] == 2.0).all()
    assert "linear.weight" not in load_file(tmp_path / "out" / WEIGHTS)
    stack = """merge_method: passthrough
slices:
- sources: [{model: math, layer_range: [0, 3]}]
- sources: [{model: code, layer_range: [1, 4]}]
"""
    mp("merge", "--recipe", recipe(models, stack), "-b", "stack", "--out", tmp_path / "stack")
    made = load_file(tmp_path / "stack" / "2_Dense" / WEIGHTS)
    assert (made["linear.weight"] == 1.0).all()
    shutil.rmtree(models / "code" / "2_Dense")
    refused = mp("merge", "--recipe", recipe(models, LINEAR), "-b", "merged", expect=13)
    assert "'code' has no weights in '2_Dense/'" in refused.err


@pytest.mark.parametrize("said", [{"tie_word_embeddings": False}, {"model_type": "mistral"}])
@pytest.mark.parametrize("how", ["recipe", "plain"])
def test_a_head_that_is_promised_is_there(
    models: Path, mp: Mp, how: str, said: dict[str, object]
) -> None:
    """Else transformers loads the result with a random one."""
    for name in ("math", "code"):
        config = json.loads((models / name / "config.json").read_text())
        del config["tie_word_embeddings"]
        config |= {"architectures": ["MistralForCausalLM"], **said}
        (models / name / "config.json").write_text(json.dumps(config))
        content = load_file(models / name / WEIGHTS)
        save_file({one: content[one] for one in content if one != "lm_head.weight"},
                  models / name / WEIGHTS)  # fmt: skip
    if how == "recipe":
        arguments: tuple[object, ...] = ("--recipe", recipe(models, LINEAR))
    else:
        arguments = (models / "math", models / "code", "--method", "linear")
    refused = mp("merge", *map(str, arguments), "-b", "merged", expect=13)
    assert "says that it has output embeddings of its own" in refused.err
    assert "say so in its config.json (tie_word_embeddings: true)" in refused.err


def pickled(directory: Path, how: str = "one") -> None:
    """The weights of a model as transformers 4 saved them."""
    content = {
        name: torch.from_numpy(values) for name, values in load_file(directory / WEIGHTS).items()
    }
    (directory / WEIGHTS).unlink()
    (directory / "training_args.bin").write_bytes(b"no weights")
    if how == "one":
        torch.save(content, directory / "pytorch_model.bin")
        return
    (directory / "pytorch_model.bin").unlink()
    shards = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    names = list(content)
    for shard, own in zip(shards, (names[::2], names[1::2]), strict=True):
        torch.save({name: content[name] for name in own}, directory / shard)
    index = {name: shards[place % 2] for place, name in enumerate(names)}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("how", ["one", "sharded"])
@pytest.mark.parametrize("committed", [False, True])
def test_pickles_are_merged(
    models: Path, mp: Mp, tmp_path: Path, how: str, committed: bool
) -> None:
    mp("merge", "--recipe", recipe(models, LINEAR), "-b", "expected", "--out", tmp_path / "a")
    pickled(models / "math", how)
    if committed:
        mp("commit", models / "math", "-b", "math")
    made = mp("merge", "--recipe", recipe(models, LINEAR), "-b", "made", "--out", tmp_path / "b")
    assert "math: pytorch_model" in made.err
    assert "no code in it is run" in made.err
    found, expected = (load_file(tmp_path / out / WEIGHTS) for out in ("a", "b"))
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in found)
    assert not list((tmp_path / "b").glob("*.bin*"))
    plain = ("math" if committed else models / "math", models / "code", "--method", "linear")
    mp("merge", *plain, "--weight", "0.75,0.25", "-b", "plain", "--out", tmp_path / "c")
    shards = sorted((tmp_path / "c").glob("*.safetensors"))
    assert len(shards) == (1 if how == "one" else 2)
    content = {name: values for shard in shards for name, values in load_file(shard).items()}
    assert all(found[name].tobytes() == content[name].tobytes() for name in found)
    if how == "sharded":
        index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == found.keys()
    assert not list(Path(".mergepipe/tmp").iterdir())
    if committed:  # what was committed comes back as it was
        mp("checkout", "math", "--to", tmp_path / "d")
        for path in (models / "math").iterdir():
            assert (tmp_path / "d" / path.name).read_bytes() == path.read_bytes()


def test_pickles_with_code_are_refused(models: Path, mp: Mp) -> None:
    (models / "math" / WEIGHTS).unlink()
    torch.save(torch.nn.Linear(2, 2), models / "math" / "pytorch_model.bin")
    before = stored()
    refused = mp("merge", "--recipe", recipe(models, LINEAR), "-b", "r", expect=12)
    assert "it needs torch.nn.modules.linear.Linear" in refused.err
    assert stored() == before


BLOCK = 4


def eight_bits(directory: Path, layout: str) -> dict[str, torch.Tensor]:
    """A model in 8-bit floats; returns the numbers that it stands for, in float64."""
    content, meaning = {}, {}
    for name, values in load_file(directory / WEIGHTS).items():
        weight = torch.from_numpy(values)
        if weight.ndim < 2 or "layers" not in name:
            content[name] = weight.bfloat16()
            meaning[name] = content[name].double()
            continue
        rows, columns = weight.shape
        block = {"block": (BLOCK, BLOCK), "row": (1, columns), "tensor": (rows, columns)}[layout]
        grid = weight.reshape(rows // block[0], block[0], columns // block[1], block[1])
        scale = grid.abs().amax((1, 3)) / 448
        wide = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        content[name] = (weight / wide).to(torch.float8_e4m3fn)
        meaning[name] = content[name].double() * wide.double()
        ending = "_scale_inv" if layout == "block" else "_scale"
        content[name + ending] = scale.reshape(()) if layout == "tensor" else scale
        content[name.removesuffix("weight") + "input_scale"] = torch.ones(())
    save_torch(content, directory / WEIGHTS, {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    (directory / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    return meaning


@pytest.mark.parametrize("layout", ["block", "row", "tensor"])
@pytest.mark.parametrize("committed", [False, True])
def test_8_bit_floats_are_what_they_stand_for(
    models: Path, mp: Mp, tmp_path: Path, layout: str, committed: bool
) -> None:
    math, code = (eight_bits(models / name, layout) for name in ("math", "code"))
    if committed:
        for name in ("math", "code"):
            mp("commit", models / name, "-b", name)
    text = LINEAR + "dtype: float32\n"
    made = mp("merge", "--recipe", recipe(models, text), "-b", "made", "--out", tmp_path / "a")
    assert "math: the weights are 8-bit floats (fp8)" in made.err
    found = load_torch(tmp_path / "a" / WEIGHTS)
    assert set(found) == set(math)
    for name, values in found.items():
        torch.testing.assert_close(
            values.double(), 0.75 * math[name] + 0.25 * code[name], rtol=2e-7, atol=1e-8
        )
    # Where nothing is asked, the result is in what the config says.
    mp("merge", "--recipe", recipe(models, LINEAR), "-b", "half", "--out", tmp_path / "b")
    here = [models / name for name in ("math", "code")]
    plain = ("math", "code") if committed else here
    mp("merge", *plain, "--method", "linear", "--weight", "0.75,0.25", "-b", "plain",
       "--out", tmp_path / "c")  # fmt: skip
    for out in ("b", "c"):
        half = load_torch(tmp_path / out / WEIGHTS)
        assert all(torch.equal(half[name], found[name].bfloat16()) for name in found)
        config = json.loads((tmp_path / out / "config.json").read_text())
        assert "quantization_config" not in config
        assert config["torch_dtype"] == "bfloat16"
        assert not list((tmp_path / out).glob("*mergepipe*"))
