"""One clear error for each recipe that cannot be merged, before anything but names is looked at.

Exit code 2: the file cannot be understood. 13: it can, and what it asks cannot be merged.
"""

from dataclasses import dataclass, field

import pytest

from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Snapshot
from mergepipe.planner.mergekit.expand import check
from mergepipe.planner.mergekit.reading import read_recipe
from tests.mergekit.toys import Toys, family, llama, llama_config

A_AND_B = "models: [{model: a}, {model: b}]\n"


@dataclass(frozen=True)
class Bad:
    """A recipe, its exit code and what its error says; `early`: without looking for a model."""

    text: str
    code: int
    message: str
    early: bool = field(default=True)


def slices(*sources: str, method: str = "passthrough") -> str:
    listed = "".join(f"- sources: [{one}]\n" for one in sources)
    return f"merge_method: {method}\nslices:\n{listed}"


BAD = {
    # 2: the file
    "empty": Bad("# nothing\n", 2, r"r\.yml is empty"),
    "no mapping": Bad("- a\n- b\n", 2, "line 1, column 1: a recipe is a list of 2"),
    "bomb": Bad(f"a: &a [{'1, ' * 999}]\nb: [{'*a, ' * 999}]\n", 2, "too many values"),
    "no method": Bad(A_AND_B, 2, "a recipe has no 'merge_method'"),
    "nothing to merge": Bad("merge_method: linear\n", 2, "none of models, slices and modules"),
    "empty models": Bad("merge_method: linear\nmodels: []\n", 2, "none of models, slices"),
    "two of them": Bad(
        slices("{model: a, layer_range: [0, 2]}") + A_AND_B, 2, "a recipe has models and slices"
    ),
    "models as text": Bad("merge_method: linear\nmodels: [a, b]\n", 2, "an entry of models is 'a'"),
    "model without name": Bad(
        "merge_method: linear\nmodels:\n- parameters: {weight: 1}\n", 2, "line 3, .* has no 'model'"
    ),
    "two adapters": Bad("merge_method: linear\nmodels: [{model: a+b+c}]\n", 2, "more than one"),
    "no adapter": Bad("merge_method: linear\nmodels: [{model: a+}]\n", 2, "names no adapter"),
    "empty slices": Bad("merge_method: linear\nslices: [{sources: []}]\n", 2, "has no sources"),
    "no range": Bad(slices("{model: a}"), 2, "a source has no 'layer_range'"),
    "range of half layers": Bad(slices("{model: a, layer_range: [0, 1.5]}"), 2, "holds '1.5'"),
    "range of truths": Bad(slices("{model: a, layer_range: [false, true]}"), 2, "holds 'false'"),
    "negative range": Bad(
        slices("{model: a, layer_range: [-2, 2]}"), 2, r"line 3, .*\[-2, 2\] counts no layers"
    ),
    "backward range": Bad(slices("{model: a, layer_range: [3, 1]}"), 2, r"\[3, 1\] counts no"),
    "range of three": Bad(slices("{model: a, layer_range: [0, 1, 2]}"), 2, "is a list of 3"),
    "range of text": Bad(slices("{model: a, layer_range: [a, b]}"), 2, "holds 'a', which"),
    "dtype": Bad(f"merge_method: linear\ndtype: float12\n{A_AND_B}", 2, "no dtype is called"),
    "mixed list": Bad(
        f"merge_method: linear\n{A_AND_B}parameters: {{weight: [1, {{value: 2}}]}}\n",
        2, "line 3, column 23: weight: '1' stands among filters",
    ),
    "null": Bad(f"merge_method: linear\n{A_AND_B}parameters: {{weight: null}}\n", 2, "weight is"),
    "empty gradient": Bad(f"merge_method: linear\n{A_AND_B}parameters: {{weight: []}}", 2, "empty"),
    "both tokenizers": Bad(
        f"merge_method: linear\n{A_AND_B}tokenizer_source: base\ntokenizer: {{source: union}}\n",
        2, "tokenizer and tokenizer_source",
    ),
    "tokenizer as text": Bad(f"merge_method: linear\n{A_AND_B}tokenizer: union\n", 2, "zer is"),
    "token from nowhere": Bad(
        f"merge_method: linear\n{A_AND_B}"
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}\n",
        2, "names no token",
    ),
    "kind of token": Bad(
        f"merge_method: linear\n{A_AND_B}tokenizer: {{tokens: {{x: {{source: {{kind: one}}}}}}}}\n",
        2, "kind is 'one'",
    ),
    "padding": Bad(
        f"merge_method: linear\n{A_AND_B}tokenizer: {{pad_to_multiple_of: -8}}\n", 2, "is '-8'"
    ),
    "two results": Bad(
        f"merge_method: linear\n{A_AND_B}---\nmerge_method: linear\n{A_AND_B}", 2, "no name"
    ),
    "two of one name": Bad(
        f"name: x\nmerge_method: linear\n{A_AND_B}---\nname: x\nmerge_method: linear\n{A_AND_B}",
        2, "line 5, .*a second document is called 'x'",
    ),
    "cycle": Bad(
        "name: x\nmerge_method: linear\nmodels: [{model: y}]\n---\n"
        "name: y\nmerge_method: linear\nmodels: [{model: x}]\n",
        2, "in a circle: 'y' -> 'x' -> 'y'",
    ),
    "of itself": Bad(
        "name: x\nmerge_method: linear\nmodels: [{model: x}]\n", 2, "circle: 'x' -> 'x'"
    ),
    # 13: methods and parameters
    "method": Bad(f"merge_method: lineer\n{A_AND_B}", 13, "line 1: no merge method 'lineer'"),
    "gradient with text": Bad(
        f"merge_method: linear\n{A_AND_B}parameters:\n  weight: [x, 2e-1]\n", 13,
        "line 4: weight is 'x'",
    ),
    "not a number": Bad(
        f"merge_method: linear\n{A_AND_B}parameters: {{weight: .nan}}\n", 13, "weight is nan"
    ),
    "density": Bad(
        f"merge_method: ties\nbase_model: base\n{A_AND_B}parameters: {{density: 1.5, weight: 1}}\n",
        13, "line 4: density is 1.5",
    ),
    "truth": Bad(
        f"merge_method: linear\n{A_AND_B}parameters: {{normalize: 2, weight: 1}}\n", 13,
        "normalize is 2",
    ),
    "dtype without arithmetic": Bad(
        f"merge_method: linear\ndtype: I8\n{A_AND_B}", 13, "method linear cannot compute I8"
    ),
    # 13: models
    "weight": Bad(
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b}\n", 13,
        "weight is missing for 'b', tensor 'lm_head.weight'", early=False,
    ),
    "weight of the base": Bad(
        "merge_method: linear\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        13, "weight is missing for 'base'", early=False,
    ),
    "t only for a model": Bad(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, "
        "{model: b, parameters: {t: 0.5}}]\n",
        13, "method slerp: t is missing, tensor", early=False,
    ),
    "unknown model": Bad(
        "merge_method: linear\nmodels:\n- model: a\n- model: nowhere\nparameters: {weight: 1}", 13,
        "line 4: no model is called 'nowhere'", early=False,
    ),
    "no base": Bad(
        f"merge_method: ties\n{A_AND_B}parameters: {{weight: 1}}", 13, "needs a base_model",
        early=False,
    ),
    "slerp without base": Bad(
        f"merge_method: slerp\n{A_AND_B}parameters: {{t: 1}}", 13, "needs a base_model", early=False
    ),
    "slerp of three": Bad(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}, {model: c}]\n"
        "parameters: {t: 1}",
        13, "line 1: method slerp takes exactly 2 models, not 3", early=False,
    ),
    "the base twice": Bad(
        "merge_method: ties\nbase_model: a\nmodels: [{model: a}, {model: b}, {model: a}]\n"
        "parameters: {weight: 1}",
        13, "line 3: the base 'a' is named twice", early=False,
    ),
    "no layers": Bad(
        slices("{model: a, layer_range: [0, 0]}", "{model: b, layer_range: [3, 3]}"), 13,
        "line 3: the result would have no layers", early=False,
    ),
    "shapes": Bad(
        "merge_method: linear\nmodels: [{model: a}, {model: wide}]\nparameters: {weight: 1}", 13,
        r"tensor 'lm_head.weight' has shape \[32, 16\] in 'wide', \[32, 8\] in 'a'", early=False,
    ),
    "vocabularies": Bad(
        "merge_method: linear\nmodels: [{model: a}, {model: more}]\nparameters: {weight: 1}", 13,
        "line 1: the embeddings of 'a' have 32 rows, those of 'more' 40", early=False,
    ),
    "layers": Bad(
        "merge_method: linear\nmodels: [{model: a}, {model: tall}]\nparameters: {weight: 1}", 13,
        "'a' gives 4 layers to a slice, 'tall' 6", early=False,
    ),
    "beyond the layers": Bad(
        slices("{model: a, layer_range: [0, 9]}"), 13,
        r"line 3: layer_range \[0, 9\] of 'a', which has 4 layers", early=False,
    ),
    "unequal slices": Bad(
        slices("{model: a, layer_range: [0, 3]}, {model: b, layer_range: [0, 2]}", method="linear")
        + "parameters: {weight: 1}",
        13, "'a' gives 3 layers to a slice, 'b' 2", early=False,
    ),
    "base of slices": Bad(
        "base_model: base\n" + slices("{model: a, layer_range: [0, 2]}", method="task_arithmetic")
        + "parameters: {weight: 1}",
        13, "the base 'base' is not among the sources", early=False,
    ),
    "module": Bad(
        "merge_method: passthrough\nmodules: {defolt: {models: [{model: a}]}}\n", 13,
        "'a' has no module 'defolt'", early=False,
    ),
    "config of other layers": Bad(
        "merge_method: passthrough\nmodels: [{model: liar}]\n", 13,
        "config.json of 'liar' says 5 layers, its tensors 'model.layers' have 4", early=False,
    ),
    "other tensors": Bad(
        "merge_method: linear\nmodels: [{model: a}, {model: biased}]\nparameters: {weight: 1}", 13,
        "'biased' has tensor 'model.layers.0.self_attn.q_proj.bias', which 'a' lacks", early=False,
    ),
    "no tensors": Bad(
        "merge_method: passthrough\nmodels: [{model: hollow}]\n", 13, "'hollow' has no tensors",
        early=False,
    ),
    "no adapter there": Bad(
        "merge_method: passthrough\nmodels: [{model: a+b}]\n", 13, "'b' is no adapter", early=False
    ),
    "weights that cancel": Bad(
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, "
        "{model: b, parameters: {weight: -1}}]\n",
        13, r"r\.yml: .*sum to 0.*tensor 'lm_head", early=False,
    ),
}  # fmt: skip


@dataclass
class Watched(Toys):
    """Toys that note every look at a model."""

    looked: int = 0

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        self.looked += 1
        return super().snapshot(identity)


@pytest.fixture(scope="module")
def toys() -> Watched:
    toys = Watched(**vars(family()))
    toys.add("wide", llama(4, hidden=16), llama_config(4))
    toys.add("more", llama(4, vocabulary=40), llama_config(4))
    toys.add("tall", llama(6), llama_config(6))
    toys.add("liar", llama(4), llama_config(5))
    toys.add("hollow", {}, llama_config(4))
    bias = {"model.layers.0.self_attn.q_proj.bias": (8,)}
    toys.add("biased", {**llama(4), **bias}, llama_config(4))
    return toys


@pytest.mark.parametrize("case", BAD)
def test_refused(toys: Watched, case: str) -> None:
    bad = BAD[case]
    before = toys.looked
    with pytest.raises(MergepipeError, match=bad.message) as caught:
        toys.expand(bad.text)
    assert caught.value.exit_code == bad.code
    assert "r.yml" in caught.value.message
    assert len(caught.value.message) < 300
    if bad.early:
        assert toys.looked == before
        with pytest.raises(MergepipeError):
            check(read_recipe(bad.text, "r.yml"))
