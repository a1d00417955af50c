"""The schema as it is read: names, tokenizers, stages, and what is warned of."""

import pytest

from mergepipe.errors import MergepipeError
from mergepipe.planner.mergekit.expand import check
from mergepipe.planner.mergekit.reading import read_recipe
from mergepipe.planner.mergekit.schema import (
    MergekitRecipe,
    ModelName,
    TokenRule,
    TokenSource,
    TokenSourceKind,
    Vocabulary,
)


def read(text: str) -> MergekitRecipe:
    return read_recipe(text, "r.yml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", ModelName("a")),
        ("org/model", ModelName("org/model")),
        ("./dir/x y", ModelName("./dir/x y")),
        ("a@main", ModelName("a", "main")),
        ("a@v1+b@v2", ModelName("a", "v1", ModelName("b", "v2"))),
        ("2024", ModelName("2024")),
        ("{model: a, lora: b}", ModelName("a", None, ModelName("b"))),
        ("{model: {path: a, revision: v1}, lora: null}", ModelName("a", "v1")),
        ("{model: {path: a+b}}", ModelName("a+b")),
    ],
)
def test_model_names(given: str, expected: ModelName) -> None:
    recipe = read(f"merge_method: passthrough\nmodels: [{{model: {given}}}]\n")
    assert recipe.output.models == (expected,)
    assert not recipe.warnings


def test_model_names_read_as_they_are_written() -> None:
    for text in ("a", "a@v1", "a+b", "a@v1+b@v2"):
        recipe = read(f"merge_method: passthrough\nmodels: [{{model: {text}}}]\n")
        assert str(recipe.output.models[0]) == text


def test_tokenizers() -> None:
    start = "merge_method: linear\nmodels: [{model: a}]\n"
    assert read(start).output.tokenizer is None
    legacy = read(f"{start}tokenizer_source: union").output.tokenizer
    assert legacy is not None
    assert (legacy.source, legacy.tokens) == (Vocabulary.UNION, ())
    modern = read(
        f"""{start}tokenizer:
  source: b
  pad_to_multiple_of: 64
  tokens:
    <|im_start|>: {{source: c, force: true}}
    "no": {{source: {{kind: zero}}}}
    x: {{source: {{kind: model_token, model: a, token: y}}}}
    z: {{source: {{kind: model_token, model: {{model: a}}, token_id: 5}}}}
    w: {{}}
"""
    ).output.tokenizer
    assert modern is not None
    assert (modern.source, modern.pad_to_multiple_of) == (ModelName("b"), 64)
    assert modern.tokens == (
        TokenRule("<|im_start|>", TokenSource(TokenSourceKind.MODEL, ModelName("c")), True),
        TokenRule("no", TokenSource(TokenSourceKind.ZERO)),
        TokenRule("x", TokenSource(TokenSourceKind.MODEL_TOKEN, ModelName("a"), "y")),
        TokenRule("z", TokenSource(TokenSourceKind.MODEL_TOKEN, ModelName("a"), None, 5)),
        TokenRule("w", None),
    )


STAGE = "name: {0}\nmerge_method: linear\nmodels: [{{model: {1}}}]\n"


def test_stages_stand_after_those_they_need() -> None:
    texts = [STAGE.format(*pair) for pair in (("z", "y"), ("x", "a"), ("y", "x"), ("w", "a"))]
    result = "merge_method: linear\nmodels: [{model: z}]\n"
    recipe = read("---\n".join([result, *texts]))
    assert [stage.name for stage in recipe.stages] == ["x", "y", "z", None]
    assert recipe.unused == ("w",)
    recipe = read("---\n".join(texts[1:3]))
    assert [stage.name for stage in recipe.stages] == ["x", "y"]


def test_a_long_chain_of_stages() -> None:
    count = 2000
    texts = [STAGE.format(f"s{number}", f"s{number + 1}") for number in range(count)]
    recipe = read("---\n".join(["merge_method: linear\nmodels: [{model: s0}]\n", *texts]))
    assert len(recipe.stages) == count + 1


def test_what_has_no_effect_is_warned_of_by_name() -> None:
    recipe = read(
        """
merge_method: ties
base_modle: base
slices:
- sources:
  - {model: a, layer_range: [0, 2], weigth: 1}
  - {model: base, layer_range: [0, 2], parameters: {normalize: true, density: 1}}
  residual_weight: 0.5
  parameters: {foo: 1}
parameters: {weigth: 1, weight: 1, int8_mask: true}
input_parameters: {a: {weight: 1}}
"""
    )
    assert [warning.split("; ")[0] for warning in check(recipe)] == [
        "r.yml, line 3: a recipe knows no 'base_modle', which is passed over",
        "r.yml, line 11: a recipe knows no 'input_parameters', which is passed over",
        "r.yml, line 8: residual_weight has no effect, in mergekit as here",
        "r.yml, line 6: a source knows no 'weigth', which is passed over",
        "r.yml, line 7: normalize is one value for all inputs of ties and has no effect here",
        "r.yml, line 10: method ties has no parameter 'weigth', which is passed over",
        "r.yml, line 9: method ties has no parameter 'foo', which is passed over",
    ]
    assert "did you mean 'base_model'?" in recipe.warnings[0]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("merge_methd: linear\nmodels: [{model: a}]\n", "merge_method"),
        ("merge_method: linear\nmodelz: [{model: a}]\n", "models"),
        ("merge_method: linear\ndtpye: x\nmodels: a\n", "dtype"),
        ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_rage: [0, 1]}]}]\n",
         "layer_range"),
        ("merge_method: passthrough\nslices: [{source: [{model: a}]}]\n", "sources"),
        ("merge_method: linear\nmodels: [{modle: a}]\n", "model"),
        ("merge_method: linear\nbase_modle: b\nmodels: [{model: a+b+c}]\n", "base_model"),
        ("merge_method: linear\nmodels: [{model: a}]\ntokenizer: {sorce: b, tokens: 3}\n",
         "source"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: {densty: 1, normalize: 7}\n",
         "density"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_named_with_what_it_leads_to(text: str, nearest: str) -> None:
    with pytest.raises(MergepipeError) as refused:
        check(read(text))
    assert f"did you mean '{nearest}'?" in refused.value.hint


def test_recipes_of_the_hub_read() -> None:
    recipe = read(
        """
slices:
  - sources:
      - model: OpenPipe/mistral-ft-optimized-1218
        layer_range: [0, 32]
      - model: mlabonne/NeuralHermes-2.5-Mistral-7B
        layer_range: [0, 32]
merge_method: slerp
base_model: OpenPipe/mistral-ft-optimized-1218
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
"""
    )
    assert check(recipe) == ()
    assert [str(name) for name in recipe.output.models] == [
        "OpenPipe/mistral-ft-optimized-1218",
        "mlabonne/NeuralHermes-2.5-Mistral-7B",
    ]
