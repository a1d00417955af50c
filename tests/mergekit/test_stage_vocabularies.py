"""A later stage moves the rows of an earlier one, as if the two were merged in two runs."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mergepipe.api import Repository
from tests.mergekit.test_command import Mp, models, mp, recipe

__all__ = ["models", "mp"]
# Random masks, thresholds over whole tensors: rows that come first would make a difference.
FIRST = """merge_method: dare_ties
base_model: base
models:
- {model: math, parameters: {weight: 0.7, density: 0.6}}
- {model: code, parameters: {weight: 0.3, density: 0.5}}
"""
SECOND = """merge_method: slerp
base_model: first
models:
- model: first
- model: more
parameters: {t: 0.3}
"""
TOKENS = {
    "union": "tokenizer_source: union\n",
    "another's": "tokenizer_source: more\n",
    "padded": "tokenizer: {source: base, pad_to_multiple_of: 48}\n",
    "a token of a stage": (
        "tokenizer:\n  source: union\n  tokens:\n"
        "    w35: {source: {kind: model_token, model: first, token: w4}}\n"
    ),
}


@pytest.mark.parametrize("tokens", TOKENS.values(), ids=TOKENS.keys())
def test_two_stages_are_two_runs(models: Path, mp: Mp, tmp_path: Path, tokens: str) -> None:
    second = SECOND + tokens
    text = f"name: first\n{FIRST}---\n{second}"
    made = mp("merge", "--recipe", recipe(models, text), "-b", "one", "--out", tmp_path / "one")
    assert "stage 'first' is merged first" in made.err
    mp("merge", "--recipe", recipe(models, FIRST), "-b", "first")
    mp("merge", "--recipe", recipe(models, second), "-b", "two", "--out", tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert {name: values.tobytes() for name, values in one.items()} == {
        name: values.tobytes() for name, values in two.items()
    }
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = mp("merge", "--recipe", recipe(models, text), "-b", "again", "--json").document
    assert again["blocks_computed"] == 0
    mp("fsck")
    mp("gc", "--prune=now")
    assert Repository.open(Path()).resolve("one")


def test_nothing_is_stored_before_the_stages_fit(models: Path, mp: Mp) -> None:
    text = f"name: first\n{FIRST}---\n{SECOND.replace('more', 'tall')}tokenizer_source: union\n"
    refused = mp("merge", "--recipe", recipe(models, text), "-b", "one", expect=13)
    assert "layers" in refused.err
    assert mp("log", "--all", expect=0).out.strip() == ""
