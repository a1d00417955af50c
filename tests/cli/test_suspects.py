"""Weights that look wrong, told by commits and plans without reading anything more."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergepipe.api import Repository
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

Poison = Callable[[dict[str, torch.Tensor]], None]


def _poisoned(model: Path, poison: Poison) -> Path:
    tensors = load_file(model / "model.safetensors")
    poison(tensors)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


def _zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer.w"] = torch.zeros_like(tensors["layer.w"])


def _scaled(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer.w"] = -6 * tensors["layer.w"]


def _shuffled(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer.w"] = tensors["layer.w"].flip(0).contiguous()


def _stretched(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer.w"] = 1.5 * tensors["layer.w"]


def _emptied(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer.w"][:48] = 0


def _suspects(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["tensor"], one["kind"]) for one in document["suspects"]]


def _warned(document: dict[str, Any]) -> list[str]:
    return [one["expert"] for one in document["warnings"] if one["kind"] == "suspect"]


@pytest.mark.parametrize(
    ("poison", "kind"),
    [
        (_zero, "zero"),
        (_scaled, "unlike"),
        (_shuffled, "unlike"),
        # Below every threshold of likeness, and far from the version before.
        (_stretched, "jump"),
        (_emptied, "jump"),
    ],
)
def test_commit_check_and_plan_say_the_same(
    merging: Path, family: dict[str, Path], mp: Mp, poison: Poison, kind: str
) -> None:
    model = _poisoned(family["code"], poison)
    made = mp("commit", model, "-b", "code", "--json")
    assert _suspects(made.document) == [("layer.w", kind)]
    assert made.err == ""
    # What is there already makes no commit, and looks no better.
    assert "1 tensor of the model looks wrong" in mp("commit", model, "-b", "code", "-q").err
    assert _suspects(mp("check", "code", "--json", expect=1).document) == [("layer.w", kind)]
    for experts in (("math", "code"), ("code",)):
        arguments = (*experts, "--base", "base", "--budget", "30%")
        assert _warned(mp("plan", *arguments, "--json").document) == ["code"]
    assert "code looks wrong in layer.w" in mp("merge", *arguments, "-b", "out").out


@pytest.mark.parametrize(("poison", "kind"), [(_zero, "zero"), (_scaled, "unlike")])
def test_of_a_base_that_is_a_merge_less_is_known(
    merging: Path, family: dict[str, Path], mp: Mp, poison: Poison, kind: str
) -> None:
    mp("merge", "math", "code", "--base", "base", "--method", "linear", "-b", "merged")
    made = mp(
        "commit", _poisoned(family["code"], poison), "-b", "next", "--base", "merged", "--json"
    )
    assert _suspects(made.document) == [("layer.w", kind)]
    sound = mp("commit", family["math"], "-b", "sound", "--base", "merged", "--json").document
    assert sound["suspects"] == []


def test_a_path_and_an_import_list_are_looked_at_too(
    merging: Path, family: dict[str, Path], mp: Mp, tmp_path: Path
) -> None:
    model = _poisoned(family["code"], _scaled)
    planned = mp("plan", model, "math", "--base", "base", "--json").document
    assert _warned(planned) == [str(model)]
    listed = tmp_path / "family.toml"
    listed.write_text(
        f'[[model]]\npath = {json.dumps(str(model))}\nbranch = "listed"\nbase = "base"\n'
    )
    assert "1 tensor of listed looks wrong" in mp("import", listed).err
    again = mp("import", listed, "--json").document["models"][0]
    assert (again["read"], _suspects(again)) == (False, [("layer.w", "unlike")])


def test_training_that_goes_on_is_not_suspected(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    base = load_file(family["base"] / "model.safetensors")

    def further(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("embed", "layer.w", "layer.v"):
            tensors[name] = base[name] + 2 * (tensors[name] - base[name])

    made = mp("commit", _poisoned(family["code"], further), "-b", "code", "--json").document
    assert made["suspects"] == []
    assert mp("check", "code", "--json").document["ok"]
    assert _warned(mp("plan", "math", "code", "--base", "base", "--json").document) == []


def test_all_of_it_may_have_leapt(merging: Path, family: dict[str, Path], mp: Mp) -> None:
    base = load_file(family["base"] / "model.safetensors")

    def leap(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("embed", "layer.w", "layer.v"):
            tensors[name] = base[name] + 5 * (tensors[name] - base[name])

    made = mp("commit", _poisoned(family["code"], leap), "-b", "code", "--json").document
    assert {kind for _, kind in _suspects(made)} == {"jump"}
    assert len(made["suspects"]) == 3


def test_another_model_is_no_broken_one(
    tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody said what it was trained from."""
    mp("init", "repository")
    monkeypatch.chdir(tmp_path / "repository")
    for seed in (1, 2):
        model = write_model(tmp_path / f"model-{seed}", tensors(seed))
        assert mp("commit", model, "-b", "main", "--json").document["suspects"] == []


def test_a_matrix_of_zeros_needs_no_base(merging: Path, family: dict[str, Path], mp: Mp) -> None:
    made = mp("commit", _poisoned(family["base"], _zero), "-b", "other").err
    assert "layer.w: all its values are zero" in made
    assert _suspects(mp("check", "other", "--json", expect=1).document) == [("layer.w", "zero")]


def test_check_names_what_it_compares_with_nothing(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["layer.x"] = tensors.pop("layer.w")

    mp("commit", _poisoned(family["code"], rename), "-b", "code")
    found = mp("check", "code", "--json").document
    assert (found["missing"], found["added"]) == (["layer.w"], ["layer.x"])
    assert "layer.w is missing: compared with nothing" in mp("check", "code").out


def test_python_has_them(merging: Path, family: dict[str, Path]) -> None:
    model = _poisoned(family["code"], _scaled)
    with Repository.open(".") as repository:
        (suspect,) = repository.commit(model, branch="code").suspects
    assert (suspect.tensor, suspect.kind) == ("layer.w", "unlike")
