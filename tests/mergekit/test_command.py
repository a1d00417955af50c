"""`mp merge --recipe` and `mp plan --recipe`, as people use them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mergepipe.api import Repository
from mergepipe.api.recipe_models import RecipeModels
from mergepipe.cli.main import main
from tests.mergekit.checkpoints import write_family

LINEAR = """merge_method: linear
models:
- model: math
  parameters: {weight: 0.75}
- model: code
  parameters: {weight: 0.25}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Mp = Callable[..., Result]


@pytest.fixture
def mp(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mp:
    monkeypatch.setenv("MP_AUTHOR", "Ada <ada@example.org>")

    def run(*arguments: str | Path, expect: int = 0) -> Result:
        capfd.readouterr()
        code = main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        assert code == expect, f"mp {arguments}: {code}\n{out}\n{err}"
        return Result(code, out, err)

    return run


@pytest.fixture
def models(tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository is the current directory; this is where checkpoints are."""
    write_family(tmp_path / "models")
    mp("init", tmp_path / "repository")
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "models"


def recipe(directory: Path, text: str) -> Path:
    path = directory / "recipe.yml"
    path.write_text(text)
    return path


def stored(repository: Path = Path()) -> dict[str, bytes]:
    """All that a repository consists of, but for its cache."""
    top = repository / ".mergepipe"
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and path.relative_to(top).parts[0] not in ("index", "lock", "store.lock")
    }


def test_directories_beside_the_recipe(models: Path, mp: Mp, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = recipe(models, LINEAR)
    document = mp("merge", "--recipe", path, "--out", out, "-b", "merged", "--json").document
    assert document["import_bytes"] > 0
    assert {one["rev"] for one in document["experts"]} == {"math", "code"}
    math, code = (load_file(models / name / "model.safetensors") for name in ("math", "code"))
    made = load_file(out / "model.safetensors")
    assert list(made) == list(math)
    for name, values in made.items():
        exact = 0.75 * math[name].astype(np.float64) + 0.25 * code[name]
        np.testing.assert_allclose(values, exact, rtol=2e-7, atol=1e-7)
    assert (out / "mergekit_config.yml").read_text() == LINEAR
    for same in ("config.json", "generation_config.json", "tokenizer.json", "LICENSE"):
        assert (out / same).read_bytes() == (models / "math" / same).read_bytes()
    assert not (out / "pytorch_model.bin").exists()
    card = (out / "README.md").read_text()
    for said in ("# merged", "| math | input | `", "`linear`", LINEAR):
        assert said in card
    again = mp("merge", "--recipe", path, "-b", "again", "--json").document
    assert (again["import_bytes"], again["blocks_computed"]) == (0, 0)


def test_revisions_come_before_directories(models: Path, mp: Mp, tmp_path: Path) -> None:
    mp("commit", models / "code", "-b", "math")
    mp("commit", models / "code", "-b", "code")
    mp("merge", "--recipe", recipe(models, LINEAR), "--out", tmp_path / "out", "-b", "merged")
    code = load_file(models / "code" / "model.safetensors")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert all(np.array_equal(made[name], code[name]) for name in code)
    text = LINEAR.replace("model: math", "model: ./math")
    mp("merge", "--recipe", recipe(models, text), "--out", tmp_path / "two", "-b", "two")
    made = load_file(tmp_path / "two" / "model.safetensors")
    assert not all(np.array_equal(made[name], code[name]) for name in code)


def test_a_plan_is_stored_and_carried_out(models: Path, mp: Mp, tmp_path: Path) -> None:
    text = """merge_method: task_arithmetic
base_model: base
models: [{model: math}, {model: code}]
parameters: {weight: [{filter: mlp, value: 0.5}, {value: [0.2, 0.8]}]}
"""
    planned = mp("plan", "--recipe", recipe(models, text), "--budget", "60%", "--json").document
    assert planned["stored"]
    assert planned["expert_bytes_planned"] <= planned["expert_bytes_full"] * 0.6
    merged = mp("merge", "--plan", planned["plan"], "-b", "merged", "--json").document
    assert merged["expert_bytes_read"] <= planned["expert_bytes_planned"]
    replayed = mp("replay", "merged", "--json").document
    assert replayed["same"]
    mp("gc", "--prune=now")
    mp("fsck", "--read-data")
    mp("checkout", "merged", "--to", tmp_path / "out")
    assert (
        "Expert weights read: at most 60% (a budget)." in (tmp_path / "out/README.md").read_text()
    )


def test_a_dry_run_writes_nothing(models: Path, mp: Mp) -> None:
    for name in ("base", "math", "code"):
        mp("commit", models / name, "-b", name, *(("--base", "base") if name != "base" else ()))
    path = recipe(models, LINEAR)
    before = stored()
    document = mp("plan", "--recipe", path, "--dry-run", "--json").document
    mp("merge", "--recipe", path, "--dry-run")
    assert stored() == before
    assert not document["stored"]
    assert document["blocks_exact"] > 0


def test_a_dry_run_imports_nothing(models: Path, mp: Mp) -> None:
    before = stored()
    told = mp("plan", "--recipe", recipe(models, LINEAR), "--dry-run", expect=2).err
    assert "is not in the repository, and a dry run imports nothing" in told
    union = LINEAR + "tokenizer_source: union\n"
    mp("plan", "--recipe", recipe(models, union), "--dry-run", expect=2)
    assert stored() == before


def test_stacks_have_the_config_that_they_need(models: Path, mp: Mp, tmp_path: Path) -> None:
    text = """merge_method: passthrough
slices:
- sources: [{model: math, layer_range: [0, 3]}]
- sources: [{model: code, layer_range: [1, 4]}]
"""
    out = tmp_path / "out"
    mp(
        "merge",
        "--recipe",
        recipe(models, text),
        "--out",
        out,
        "-b",
        "tall",
        "--out-shard-size",
        "5KB",
    )
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted({*index["weight_map"].values()})
    assert shards == sorted(path.name for path in out.glob("*.safetensors"))
    assert len(shards) > 1
    made = {name: value for shard in shards for name, value in load_file(out / shard).items()}
    code = load_file(models / "code" / "model.safetensors")
    key = "self_attn.q_proj.weight"
    assert np.array_equal(made[f"model.layers.5.{key}"], code[f"model.layers.3.{key}"])
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 6
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in made.values())


def test_vocabularies_are_brought_together(models: Path, mp: Mp, tmp_path: Path) -> None:
    text = """merge_method: linear
base_model: base
models:
- {model: base, parameters: {weight: 0.5}}
- {model: more, parameters: {weight: 0.5}}
dtype: float16
tokenizer: {source: union, pad_to_multiple_of: 16}
"""
    out = tmp_path / "out"
    mp("merge", "--recipe", recipe(models, text), "--out", out, "-b", "merged")
    made = load_file(out / "model.safetensors")
    base, more = (load_file(models / name / "model.safetensors") for name in ("base", "more"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert made[name].shape == (48, 8)
        mean = (base[name] + more[name][:32]) / 2
        np.testing.assert_allclose(made[name][:32], mean, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(made[name][32:40], more[name][32:], rtol=1e-3, atol=1e-3)
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == 48
    vocabulary = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary["w39"] == 39
    mp("gc", "--prune=now", "--no-reflog")
    mp("fsck", "--read-data")
    assert mp("replay", "merged", "--json").document["same"]
    explained = mp("explain", "merged", "--tensor", "lm_head.weight").out
    assert "base" in explained
    told = mp("plan", "--recipe", recipe(models, text), "--dry-run", expect=2).err
    assert "and a dry run makes none" in told


def test_adapters(models: Path, mp: Mp, tmp_path: Path) -> None:
    """On a model, and by itself beside a whole expert; its few bytes are all that it costs."""
    source = np.random.default_rng(5)
    stem = "base_model.model.model.layers.1.mlp.up_proj"
    down = source.standard_normal((2, 8)).astype(np.float32)
    up = source.standard_normal((16, 2)).astype(np.float32)
    lora = models / "lora"
    lora.mkdir()
    save_file(
        {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up},
        lora / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "base_model_name_or_path": "base"}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    held = {name: load_file(models / name / "model.safetensors") for name in ("base", "math")}
    name = "model.layers.1.mlp.up_proj.weight"
    change = 1.5 * up.astype(np.float64) @ down
    plus = LINEAR.replace("model: code", "model: base+lora")
    mp("merge", "--recipe", recipe(models, plus), "--out", tmp_path / "plus", "-b", "plus")
    made = load_file(tmp_path / "plus" / "model.safetensors")
    exact = 0.75 * held["math"][name].astype(np.float64) + 0.25 * (held["base"][name] + change)
    np.testing.assert_allclose(made[name], exact, rtol=1e-6, atol=1e-6)
    alone = """merge_method: task_arithmetic
base_model: base
models:
- {model: lora, parameters: {weight: 0.5}}
- {model: math, parameters: {weight: 1}}
"""
    out = tmp_path / "alone"
    document = mp("merge", "--recipe", recipe(models, alone), "--out", out, "-b", "alone", "--json")
    made = load_file(out / "model.safetensors")
    exact = held["math"][name].astype(np.float64) + 0.5 * change
    np.testing.assert_allclose(made[name], exact, rtol=1e-6, atol=1e-6)
    assert not (out / "adapter_config.json").exists()
    own = next(one for one in document.document["experts"] if one["rev"] == "lora")
    assert own["bytes_planned"] <= 2 * 256  # two small records; the weight alone has 512 bytes
    only = "merge_method: passthrough\nmodels: [{model: base+lora}]\n"
    mp("merge", "--recipe", recipe(models, only), "--out", tmp_path / "only", "-b", "only")
    made = load_file(tmp_path / "only" / "model.safetensors")
    np.testing.assert_allclose(made[name], held["base"][name] + change, rtol=1e-6, atol=1e-6)
    other = "model.layers.2.mlp.up_proj.weight"
    assert np.array_equal(made[other], held["base"][other])


REFUSED = {
    "unknown model": (LINEAR.replace("code", "cod"), 13, "'cod' is no revision here"),
    "shapes": (LINEAR.replace("code", "wide"), 13, "has shape"),
    "vocabularies": (LINEAR.replace("code", "more"), 13, "have 32 rows, those of 'more' 40"),
    "layers": (LINEAR.replace("code", "tall"), 13, "'math' gives 4 layers"),
    "weight": (LINEAR.replace("{weight: 0.25}", "{}"), 13, "weight is missing for 'code'"),
    "method": (LINEAR.replace("linear", "liner"), 13, "no merge method 'liner'"),
    "key": (LINEAR.replace("models:", "model:"), 2, "none of models, slices and modules"),
    "epsilon": (
        "merge_method: della\nbase_model: base\nmodels: [{model: math}]\n"
        "parameters: {weight: 1, density: 0.1, epsilon: 0.3}\n", 13, "epsilon",
    ),
    "bomb": ("a: &a [" + "x, " * 999 + "]\nb: [" + "*a, " * 999 + "]\n", 2, "too many values"),
    "tokenizer": (LINEAR + "tokenizer_source: nobody\n", 13, "'nobody' is no revision"),
    "no token": (
        LINEAR + "tokenizer: {source: union, tokens: {x: {source: math}}}\n", 13, "token 'x'",
    ),
    "range": (
        "merge_method: passthrough\nslices: [{sources: [{model: math, layer_range: [0, 9]}]}]\n",
        13, "which has 4 layers",
    ),
    "cycle": (
        "name: x\nmerge_method: passthrough\nmodels: [{model: x}]\n", 2, "in a circle",
    ),
    "template": (LINEAR + "chat_template: nosuch\n", 13, "no chat template is called"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["merge", "plan"])
def test_refused_before_anything_is_read_or_written(
    command: str, case: str, models: Path, mp: Mp, tmp_path: Path
) -> None:
    text, code, message = REFUSED[case]
    before = stored()
    options = ("--out", tmp_path / "out", "-b", "merged") if command == "merge" else ()
    path = recipe(models, text)
    error = mp(command, "--recipe", path, *options, "--json", expect=code).document["error"]
    assert message in error["message"]
    assert error["code"] == code
    assert stored() == before
    assert not (tmp_path / "out").exists()


def test_weights_are_not_looked_at_before_a_recipe_fits(models: Path) -> None:
    """With every weight gone from the files, a recipe is refused for what is wrong with it."""
    for path in models.rglob("model.safetensors"):
        with path.open("r+b") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            file.truncate(8 + length)
            file.truncate(size)  # the data is a hole now: only names and shapes are left
    with Repository.open() as repository:
        looked = RecipeModels(repository, repository.imports.conversions, models)
        before = stored()
        for name in ("math", "tall"):
            looked.snapshot(looked.find(name, None))
        assert set(looked.unknown) == {models / "math", models / "tall"}
        assert stored() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "math", "--recipe", "r.yml"), "a recipe has its models in it"),
        (("merge", "--recipe", "r.yml", "--method", "ties"), "all of this in it: --method"),
        (("merge", "--recipe", "r.yml", "--plan", "abcd"), "a stored plan has its recipe"),
        (("merge", "math", "--out-shard-size", "5GB"), "--out-shard-size goes with --recipe"),
        (("merge", "--recipe", "r.yml"), "'r.yml' cannot be read: No such file"),
        (("merge", "--recipe", "."), "cannot be read"),
        (("merge", "--recipe", "r.yml", "--out-shard-size", "1KB"), "too small"),
        (("merge", "--recipe", "r.yml", "--budget", "many"), "budget"),
        (("plan",), "what shall be merged?"),
        (("plan", "math", "--recipe", "r.yml"), "a recipe has its models in it"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str, models: Path, mp: Mp) -> None:
    assert message in mp(*arguments, expect=2).err


def test_what_has_no_effect_is_said(models: Path, mp: Mp) -> None:
    text = LINEAR + "parameters: {density: 0.5}\nmerge_methud: ties\n"
    told = mp("plan", "--recipe", recipe(models, text)).err
    assert "warning: recipe.yml, line 7: method linear has no parameter 'density'" in told
    assert "warning: recipe.yml, line 8: a recipe knows no 'merge_methud'" in told


def test_text_from_python(models: Path, mp: Mp) -> None:
    mp("commit", models / "math", "-b", "math")
    mp("commit", models / "code", "-b", "code")
    with Repository.open() as repository:
        planned = repository.plan_recipe(LINEAR, store=False)
        result = repository.merge_recipe(LINEAR, branch="merged")
        assert repository.resolve("merged") == result.commit
        assert planned.costs.expert_bytes_planned > 0


def test_every_document_of_a_file_at_once(models: Path, mp: Mp, tmp_path: Path) -> None:
    text = """name: tuned
merge_method: task_arithmetic
base_model: base
models: [{model: math}, {model: code}]
parameters: {weight: 0.5}
---
merge_method: passthrough
slices:
- sources: [{model: tuned, layer_range: [0, 2], parameters: {scale: 2}}]
- sources: [{model: base, layer_range: [2, 4]}]
"""
    out = tmp_path / "out"
    mp("merge", "--recipe", recipe(models, text), "--out", out, "-b", "merged")
    held = {
        name: load_file(models / name / "model.safetensors") for name in ("base", "math", "code")
    }
    made = load_file(out / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    mean = (held["math"][name].astype(np.float64) + held["code"][name]) / 2
    np.testing.assert_allclose(made[name], 2 * mean, rtol=1e-6, atol=1e-6)
    name = "model.layers.3.mlp.up_proj.weight"
    assert np.array_equal(made[name], held["base"][name])
    assert "`task_arithmetic`, then `passthrough`" in (out / "README.md").read_text()
    refs = mp("-C", ".", "branch", "--json").document
    assert [one["name"] for one in refs] == ["merged"]
