"""Slices: which layers they take, which settings reach them, and what is before and after them."""

import pytest

from mergepipe.errors import MergeInputError
from tests.mergekit.expanding import line, q, sources, weights
from tests.mergekit.toys import Toys, family


@pytest.fixture
def toys() -> Toys:
    return family()


def test_shifted_slices_filter_inputs_by_their_own_names(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: linear
slices:
- sources:
  - model: a
    layer_range: [0, 3]
    parameters: {weight: [{filter: layers.1, value: 5}, {value: [1, 2, 3]}]}
- sources:
  - model: b
    layer_range: [1, 4]
    parameters: {weight: [{filter: layers.1, value: 5}, {value: [1, 2, 3]}]}
  parameters: {normalize: [{filter: layers.4, value: false}]}
"""
    )
    assert [weights(merge, q(layer))[0] for layer in range(6)] == [1, 5, 3, 5, 2, 3]
    assert [line(merge, q(layer)).settings.flag("normalize") for layer in (3, 4)] == [True, False]
    assert sources(toys, merge, q(3)) == [f"b:{q(1)}"]
    assert sources(toys, merge, "model.embed_tokens.weight") == ["a:model.embed_tokens.weight"]
    assert sources(toys, merge, "lm_head.weight") == ["b:lm_head.weight"]
    assert merge.output.config is not None
    assert merge.output.config["num_hidden_layers"] == 6
    assert merge.output.architecture.layers("default") == 6


def test_a_slice_without_layers_chooses_what_is_after_them(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [4, 4]}]
"""
    )
    assert sources(toys, merge, "lm_head.weight") == ["b:lm_head.weight"]
    assert sources(toys, merge, "model.norm.weight") == ["b:model.norm.weight"]
    assert sources(toys, merge, "model.embed_tokens.weight") == ["a:model.embed_tokens.weight"]
    assert [one.name for one in merge.written if "q_proj" in one.name] == [q(0), q(1)]


def test_a_slice_of_one_layer_takes_the_last_value(toys: Toys) -> None:
    merge = toys.expand(
        "merge_method: linear\nslices:\n- sources:\n"
        "  - {model: a, layer_range: [0, 1], parameters: {weight: [1, 2, 3]}}\n"
    )
    assert weights(merge, q(0)) == [3.0]
    assert weights(merge, "model.norm.weight") == [1.0]


def test_slices_have_bases_of_their_own(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: task_arithmetic
base_model: base
slices:
- sources: [{model: a, layer_range: [0, 2]}, {model: base, layer_range: [0, 2]}]
- sources: [{model: a, layer_range: [2, 4]}, {model: b, layer_range: [1, 3]}]
  base_model: b
parameters: {weight: 2}
"""
    )
    bases = []
    for layer in range(4):
        base = line(merge, q(layer)).base
        assert base is not None
        bases.append(toys.owner(base.source))
    assert bases == [f"base:{q(0)}", f"base:{q(1)}", f"b:{q(1)}", f"b:{q(2)}"]
    assert [sources(toys, merge, q(layer)) for layer in (0, 3)] == [[f"a:{q(0)}"], [f"a:{q(3)}"]]
    assert merge.base is not None
    assert merge.models[merge.base].label == "base"


def test_a_slice_of_the_base_alone_is_the_base(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: ties
base_model: base
slices:
- sources: [{model: base, layer_range: [0, 2]}]
- sources: [{model: base, layer_range: [2, 4]}, {model: a, layer_range: [2, 4]}]
parameters: {weight: 1}
dtype: bfloat16
"""
    )
    alone = line(merge, q(1))
    assert (alone.method.name, alone.base, alone.dtype.name) == ("passthrough", None, "BF16")
    assert sources(toys, merge, q(1)) == [f"base:{q(1)}"]
    assert line(merge, q(2)).method.name == "ties"
    whole = toys.expand("merge_method: model_stock\nbase_model: base\nmodels: [{model: base}]\n")
    assert {one.method.name for one in whole.written} == {"passthrough"}
    with pytest.raises(MergeInputError, match="model_stock takes at least 2, not 1"):
        toys.expand("merge_method: model_stock\nbase_model: base\nmodels: [{model: a}]\n")


@pytest.mark.parametrize("method", ["slerp", "nuslerp"])
def test_a_part_with_one_source_is_that_source(toys: Toys, method: str) -> None:
    base = "base_model: base\n" if method == "slerp" else ""
    merge = toys.expand(
        f"""
merge_method: {method}
{base}slices:
- sources: [{{model: a, layer_range: [0, 2]}}]
- sources: [{{model: base, layer_range: [2, 4]}}, {{model: a, layer_range: [2, 4]}}]
parameters: {{t: 0.5, weight: 0.5}}
"""
    )
    assert line(merge, q(0)).method.name == "passthrough"
    assert sources(toys, merge, q(0)) == [f"a:{q(0)}"]
    assert line(merge, q(3)).method.name == method


def test_a_slice_of_no_layers_between_others_is_told(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 0]}]
- sources: [{model: b, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [3, 3]}]
- sources: [{model: c, layer_range: [4, 4]}]
"""
    )
    assert [warning.split(";")[0] for warning in merge.warnings] == [
        "r.yml, line 6: a slice between others holds no layers, and has no effect"
    ]
    assert sources(toys, merge, "model.embed_tokens.weight") == ["a:model.embed_tokens.weight"]
    assert sources(toys, merge, "lm_head.weight") == ["c:lm_head.weight"]
