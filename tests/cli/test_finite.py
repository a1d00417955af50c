"""Values that are infinite or NaN: counted at commit, told everywhere, refused by merges."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergepipe.api import Repository
from mergepipe.errors import MergeInputError
from tests.cli.conftest import Mp


def _spoil(
    model: Path, tensor: str, value: float, count: int, dtype: torch.dtype | None = None
) -> Path:
    """Put a value into the first elements of a tensor of a checkpoint."""
    tensors = load_file(model / "model.safetensors")
    if dtype is not None:
        tensors = {name: values.to(dtype) for name, values in tensors.items()}
    tensors[tensor].view(-1)[:count] = value
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


@pytest.fixture
def bad(merging: Path, family: dict[str, Path], mp: Mp) -> Path:
    """The repository with a branch `bad`, which has 7 NaN in `layer.w`."""
    mp("commit", _spoil(family["code"], "layer.w", float("nan"), 7), "-b", "bad", "--base", "base")
    return merging


def test_commit_counts_and_tells(
    merging: Path, family: dict[str, Path], mp: Mp, tmp_path: Path
) -> None:
    model = _spoil(family["code"], "embed", float("-inf"), 3)
    told = mp("commit", model, "-b", "bad", "--base", "base", "-q")
    assert "3 values that are not finite" in told.err
    assert "embed: 3 of 24,576" in told.err
    # Content that is there already makes no commit, and is no less spoilt.
    again = mp("commit", model, "-b", "bad", "--json")
    assert again.err == ""
    assert again.document["nonfinite"] == [
        {"tensor": "embed", "file": "model.safetensors", "count": 3, "elements": 24576}
    ]
    listed = tmp_path / "family.toml"
    listed.write_text(f'[[model]]\npath = {json.dumps(str(model))}\nbranch = "listed"\n')
    assert "listed holds 3 values" in mp("import", listed).err
    assert mp("import", listed, "--json").document["models"][0]["nonfinite"][0]["count"] == 3
    assert mp("commit", family["math"], "-b", "math", "--json").document["nonfinite"] == []


@pytest.mark.parametrize("budget", [(), ("--budget", "10%")])
def test_merge_refuses_what_the_plan_names(bad: Path, mp: Mp, budget: tuple[str, ...]) -> None:
    experts = ("math", "bad", "--base", "base", *budget)
    planned = mp("plan", *experts, "--json").document
    values = {"tensor": "layer.w", "file": "model.safetensors", "count": 7, "elements": 24576}
    assert planned["nonfinite"] == [{"rev": "bad"} | values]
    assert planned["unchecked"] == []
    assert "bad holds 7 values that are not finite" in mp("plan", *experts).out
    refused = mp("merge", *experts, "-b", "out", "--json", expect=13)
    error = json.loads(refused.out)["error"]
    assert "bad: 7 of 24,576 values of 'layer.w'" in error["message"]
    assert "--allow-nonfinite" in error["hint"]
    mp("show", "out", expect=1)
    allowed = mp("merge", *experts, "-b", "out", "--allow-nonfinite", "--json").document
    assert [one["rev"] for one in allowed["nonfinite"]] == ["bad"]


def test_a_stored_plan_is_refused_too(bad: Path, mp: Mp) -> None:
    plan = mp("plan", "math", "bad", "--base", "base", "-q").out.strip()
    assert "7 of 24,576" in mp("merge", "--plan", plan, expect=13).err
    mp("merge", "--plan", plan, "--allow-nonfinite", "-b", "out")


def test_a_result_is_known_without_being_read(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    """A merge of finite values counts what it makes."""
    mp("merge", "math", "code", "--base", "base", "-b", "clean")
    assert mp("plan", "math", "clean", "--base", "base", "--json").document["unchecked"] == []


def test_an_overflow_is_refused_every_time(
    merging: Path, family: dict[str, Path], mp: Mp, tmp_path: Path
) -> None:
    model = _spoil(family["code"], "norm", 1e6, 2, torch.float32)
    mp("commit", model, "-b", "large")
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("models: [{model: large}]\nmerge_method: passthrough\ndtype: float16\n")
    for _ in range(2):
        refused = mp("merge", "--recipe", recipe, "-b", "out", expect=13)
        assert "2 of 96 values of 'norm'" in refused.err
        assert "RuntimeWarning" not in refused.err
    mp("show", "out", expect=1)
    allowed = mp("merge", "--recipe", recipe, "-b", "out", "--allow-nonfinite", "--json").document
    assert [(one["tensor"], one["count"]) for one in allowed["output_nonfinite"]] == [("norm", 2)]
    # What was allowed once is not remembered as good.
    mp("merge", "--recipe", recipe, "-b", "other", expect=13)


def test_what_nobody_counted_is_counted_on_the_way(bad: Path, mp: Mp) -> None:
    """As in a clone: the counts at commit are of the repository that took the model in."""
    with Repository.open(".") as repository:
        repository.storage.index.reset()
    planned = mp("plan", "math", "bad", "--base", "base", "--json").document
    assert set(planned["unchecked"]) == {"base", "math", "bad"}
    refused = mp("merge", "math", "bad", "--base", "base", "-b", "out", expect=13)
    assert "bad: 7 of 24,576 values of 'layer.w'" in refused.err


def test_python_says_the_same(bad: Path) -> None:
    with Repository.open(".") as repository:
        planned = repository.plan(base="base", experts=["math", "bad"])
        with pytest.raises(MergeInputError, match="bad: 7 of 24,576"):
            repository.merge(planned, branch="out")
        made = repository.merge(planned, branch="out", allow_nonfinite=True)
        assert [one.values.count for one in made.nonfinite.inputs] == [7]


def test_diff_shows_counts_in_place_of_numbers(bad: Path, mp: Mp) -> None:
    row = next(line for line in mp("diff", "code", "bad").out.splitlines() if "layer.w" in line)
    assert row.split()[-1] == "7"
    assert row.split()[:2] == ["layer.w", "1/12"]
    assert len(row.split()) == 4


def test_check_finds_what_is_wrong(merging: Path, family: dict[str, Path], mp: Mp) -> None:
    tensors = load_file(family["code"] / "model.safetensors")
    tensors["embed"] = -6 * tensors["embed"]
    tensors["layer.w"] = torch.zeros_like(tensors["layer.w"])
    tensors["layer.v"].view(-1)[0] = float("nan")
    save_file(tensors, family["code"] / "model.safetensors", {"format": "pt"})
    mp("commit", family["code"], "-b", "bad", "--base", "base")
    found = mp("check", "bad", "--json", expect=1).document
    kinds = {one["tensor"]: one["kind"] for one in found["suspects"]}
    assert kinds == {"embed": "unlike", "layer.w": "zero", "layer.v": "nonfinite"}
    assert "zero layer.w: all its values are zero" in mp("check", "bad", expect=1).out
    assert mp("check", "math", "--json").document["ok"]
    assert mp("check", "base", "--json").document["against"] is None
    assert not mp("check", "bad", "--against", "code", "--json", expect=1).document["ok"]
    with Repository.open(".") as repository:
        repository.storage.index.reset()
    assert mp("check", "bad", "--json", expect=1).document == found


@pytest.mark.parametrize("budget", [(), ("--budget", "30%")])
def test_a_plan_tells_of_an_outlier(
    merging: Path, family: dict[str, Path], mp: Mp, budget: tuple[str, ...]
) -> None:
    tensors = load_file(family["code"] / "model.safetensors")
    tensors["embed"] = -6 * tensors["embed"]
    save_file(tensors, family["code"] / "model.safetensors", {"format": "pt"})
    mp("commit", family["code"], "-b", "bad", "--base", "base")
    arguments = ("plan", "math", "bad", "--base", "base", *budget)
    told = mp(*arguments, "--json").document["warnings"]
    assert [(one["expert"]) for one in told if one["kind"] == "outlier"] == ["bad"]
    assert "bad changes embed" in mp(*arguments).out


def test_factors_of_an_adapter_count_as_well(merging: Path, mp: Mp, tmp_path: Path) -> None:
    for seed, name in enumerate(("first", "second")):
        model = tmp_path / name
        model.mkdir()
        weights = torch.randn(192, 128, generator=torch.Generator().manual_seed(seed))
        save_file({"layer.weight": weights}, model / "model.safetensors", {"format": "pt"})
        (model / "config.json").write_text(json.dumps({"architectures": ["Tiny"]}))
        mp("commit", model, "-b", name)
    adapter = tmp_path / "lora"
    adapter.mkdir()
    down, up = torch.ones(2, 128), torch.ones(192, 2)
    down[0, 0] = float("inf")
    prefix = "base_model.model.layer"
    factors = {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    save_file(factors, adapter / "adapter_model.safetensors", {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["layer"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert "holds 1 value that is not finite" in mp("commit", adapter, "-b", "lora").err
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        "models: [{model: first+lora}, {model: second}]\n"
        "parameters: {weight: 1}\nmerge_method: linear\n"
    )
    refused = mp("merge", "--recipe", recipe, "-b", "out", expect=13)
    assert "1 of 256 values" in refused.err
