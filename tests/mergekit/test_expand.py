"""What recipes come to, line by line: settings, bases, dtypes, and models that do not match.

The numbers are those of mergekit 0.1.5 on such models.
"""

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.plans.left_out import Kind, LeftOut
from tests.mergekit.expanding import line, models, q, sources, weights
from tests.mergekit.toys import Toys, family, llama, llama_config


@pytest.fixture
def toys() -> Toys:
    return family()


def test_gradients_run_over_the_layers_and_begin_before_them(toys: Toys) -> None:
    merge = toys.expand(
        models("{model: a, parameters: {weight: [0.25, 1, 0.5]}}",
               "{model: b, parameters: {weight: [5]}}")
    )  # fmt: skip
    found = [weights(merge, q(layer)) for layer in range(4)]
    assert [own for own, _ in found] == pytest.approx([0.25, 0.75, 1 - 1 / 6, 0.5])
    assert {own for _, own in found} == {5.0}
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert weights(merge, name) == [0.25, 5.0]


def test_filters_first_match_wins_and_others_fall_to_the_next_level(toys: Toys) -> None:
    merge = toys.expand(
        models(
            "model: a\n  parameters: {weight: [{filter: q_proj, value: [0.5, 1]}, "
            "{filter: layers.1, value: 3}, {filter: lm_head, value: 7}]}",
            "{model: b, parameters: {weight: {filter: q_proj, value: 0}}}",
            more="parameters: {weight: [{filter: '*', value: 2}]}",
        )
    )
    assert weights(merge, "lm_head.weight") == [7.0, 2.0]
    assert weights(merge, q(1)) == pytest.approx([2 / 3, 0])
    assert weights(merge, "model.layers.1.mlp.up_proj.weight") == [3.0, 2.0]
    assert weights(merge, "model.layers.2.mlp.up_proj.weight") == [2.0, 2.0]


def test_levels_source_slice_module_recipe(toys: Toys) -> None:
    text = """
merge_method: linear
modules:
  default:
    slices:
    - sources:
      - {model: a, layer_range: [0, 1], parameters: {weight: 1}}
      - {model: b, layer_range: [0, 1]}
      parameters: {weight: 2, normalize: false}
    - sources:
      - {model: a, layer_range: [1, 2]}
      - {model: b, layer_range: [1, 2], parameters: {weight: 5}}
    parameters: {weight: 3}
parameters: {weight: 4, normalize: true}
"""
    merge = toys.expand(text)
    assert (weights(merge, q(0)), weights(merge, q(1))) == ([1.0, 2.0], [3.0, 5.0])
    assert [line(merge, q(layer)).settings.flag("normalize") for layer in (0, 1)] == [False, True]
    merge = toys.expand(text.replace("    parameters: {weight: 3}\n", ""))
    assert weights(merge, q(1)) == [4.0, 5.0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[false, true, false]", [False, False, True, False]),
        ("[0, 1]", [False, False, False, True]),
        ("'no'", [False] * 4),
        ("0.0", [False] * 4),
    ],
)
def test_truth_values_pick_one(toys: Toys, given: str, expected: list[bool]) -> None:
    merge = toys.expand(
        models("{model: a}", "{model: b}", more=f"parameters: {{weight: 1, normalize: {given}}}")
    )
    assert [line(merge, q(layer)).settings.flag("normalize") for layer in range(4)] == expected


def test_numbers_as_text_and_truth_as_numbers(toys: Toys) -> None:
    merge = toys.expand(
        models("{model: a, parameters: {weight: [1e-1, 2e-1]}}",
               "{model: b, parameters: {weight: true}}")
    )  # fmt: skip
    assert weights(merge, q(3)) == pytest.approx([0.2, 1.0])
    assert weights(merge, "lm_head.weight") == pytest.approx([0.1, 1.0])


def test_what_a_base_is_to_a_method(toys: Toys) -> None:
    def inputs(text: str) -> tuple[list[str], str | None]:
        made = line(toys.expand(text), "model.norm.weight")
        base = None if made.base is None else toys.owner(made.base.source)[0:4].split(":")[0]
        return [toys.owner(one.source).split(":")[0] for one in made.inputs], base

    weight = "base_model: base\nparameters: {weight: 1}"
    unlisted = models("model: a", "model: b", more=weight)
    assert inputs(unlisted) == (["a", "b", "base"], None)
    listed = models("model: a", "model: base", "model: b", more=weight)
    assert inputs(listed) == (["a", "base", "b"], None)
    for text in (unlisted, listed):
        assert inputs(text.replace("linear", "ties")) == (["a", "b"], "base")
    for entries in (("model: a",), ("model: a", "model: base")):
        text = models(*entries, method="slerp", more="base_model: base\nparameters: {t: 0.5}")
        assert inputs(text) == (["base", "a"], None)


def test_whole_models_keep_the_order_of_the_files(toys: Toys) -> None:
    merge = toys.expand(models("model: a", "model: b", more="parameters: {weight: 1}"))
    assert [one.name for one in merge.written] == list(llama(4))
    assert [one.label for one in merge.models] == ["a", "b"]


def test_dtypes(toys: Toys) -> None:
    toys.add("half", llama(4), llama_config(4), dtype=dict.fromkeys(llama(4), "BF16"))
    toys.add("other", llama(4), llama_config(4), dtype=dict.fromkeys(llama(4), "F16"))
    for entries, given, expected in (
        (("half", "half2"), "", "BF16"),
        (("half", "other"), "", "F32"),
        (("half", "other"), "dtype: torch.float16", "F16"),
        (("half", "other"), "dtype: float16\nout_dtype: float64", "F64"),
        (("half", "a"), "out_dtype: bfloat16", "BF16"),
    ):
        toys.named["half2"] = toys.named["half"]
        text = models(
            *(f"model: {one}" for one in entries), more=f"{given}\nparameters: {{weight: 1}}"
        )
        assert line(toys.expand(text), q(0)).dtype.name == expected


def test_integers_are_copied_where_all_agree(toys: Toys) -> None:
    shapes = {**llama(2), "model.rotary_emb.positions": (16,)}
    dtype = {"model.rotary_emb.positions": "I64"}
    same = {"model.rotary_emb.positions": "shared"}
    for name in ("x", "y"):
        toys.add(name, shapes, llama_config(2), dtype, same)
    toys.add("z", shapes, llama_config(2), dtype)
    text = models("model: x", "model: y", more="parameters: {weight: 1}\ndtype: float32")
    made = line(toys.expand(text), "model.rotary_emb.positions")
    assert (made.copied, made.dtype.name, len(made.inputs)) == (True, "I64", 1)
    with pytest.raises(
        MergeInputError, match=r"rotary_emb\.positions' is I64 in 'x' and not the same"
    ):
        toys.expand(text.replace("y", "z"))


def test_models_without_layers_or_config_merge_by_names(toys: Toys) -> None:
    shapes = {"unet.down.0.weight": (4, 4), "scale": (), "nothing": (0, 4)}
    for name in ("x", "y"):
        toys.add(name, shapes)
    merge = toys.expand(models("model: x", "model: y", more="parameters: {weight: 1}"))
    assert [one.name for one in merge.written] == list(shapes)
    assert merge.output.config is None


def test_missing_tensors_may_be_allowed(toys: Toys) -> None:
    toys.add("part", {name: shape for name, shape in llama(4).items() if name != q(2)})
    text = models(
        "model: part", "model: a", method="ties", more="base_model: base\nparameters: {weight: 1}"
    )
    with pytest.raises(MergeInputError, match=rf"r\.yml, line 3: 'part' lacks tensor '{q(2)}'"):
        toys.expand(text)
    merge = toys.expand(text, allow_missing=True)
    assert line(merge, q(2)).inputs[0].source is None
    [left] = merge.left_out
    assert left == LeftOut(Kind.MISSING_TENSORS, "part", (q(2),))
    assert left.message == f"'part' lacks 1 tensor; it adds nothing to the base's there: '{q(2)}'"


def test_a_model_with_nothing_in_common_is_refused(toys: Toys) -> None:
    odd = {f"model.layers.{layer}.another.weight": (2,) for layer in range(4)}
    toys.add("odd", odd, llama_config())
    task = "parameters: {weight: 1}\nbase_model: base\n"
    text = models("model: odd", method="task_arithmetic", more=task)
    with pytest.raises(MergeInputError, match="'odd' has none of the tensors of 'base'"):
        toys.expand(text, allow_missing=True)


def test_one_model_may_come_twice(toys: Toys) -> None:
    merge = toys.expand(
        """
merge_method: linear
slices:
- sources:
  - {model: a, layer_range: ["0", 2.0], parameters: {weight: 1}}
  - {model: a, layer_range: [2, "4.0"], parameters: {weight: 3}}
"""
    )
    assert sources(toys, merge, q(1)) == [f"a:{q(1)}", f"a:{q(3)}"]
    assert weights(merge, q(1)) == [1.0, 3.0]
    both = toys.expand(
        models("{model: a, parameters: {weight: 1}}", "{model: a, parameters: {weight: 2}}",
               method="task_arithmetic", more="base_model: base\n")
    )  # fmt: skip
    assert weights(both, q(0)) == [1.0, 2.0]


def test_weights_of_other_names_are_matched_in_and_outside_of_layers(toys: Toys) -> None:
    inner = {"ln.weight": (4,), "attention.output.dense.weight": (4, 4)}
    disk = {f"bert.encoder.layer.{n}.{name}": size for n in (0, 1) for name, size in inner.items()}
    disk["bert.embeddings.LayerNorm.gamma"] = (4,)
    memory = {
        "embeddings.LayerNorm.weight": (4,),
        **{f"layers.{n}.ln.weight": (4,) for n in (0, 1)},
        **{f"layers.{n}.attention.o_proj.weight": (4, 4) for n in (0, 1)},
    }
    toys.add("disk", disk)
    toys.add("memory", memory)
    merge = toys.expand(
        models(
            "model: disk",
            method="task_arithmetic",
            more="base_model: memory\nparameters: {weight: 1}\n",
        )
    )
    assert [one.name for one in merge.written] == list(memory)
    dense = "bert.encoder.layer.1.attention.output.dense.weight"
    assert sources(toys, merge, "layers.1.attention.o_proj.weight") == [f"disk:{dense}"]
    gamma = "bert.embeddings.LayerNorm.gamma"
    assert sources(toys, merge, "embeddings.LayerNorm.weight") == [f"disk:{gamma}"]
    assert merge.left_out == ()
    assert merge.warnings == (
        "r.yml, line 1: names of 'disk' are matched with those of 'memory': "
        f"'{gamma}' is its 'embeddings.LayerNorm.weight', and so on for 3 tensors",
    )


def test_another_layout_is_refused_whatever_is_allowed(toys: Toys) -> None:
    attention = "model.layers.0.self_attn."
    toys.add("apart", {f"{attention}{kind}_proj.weight": (4, 4) for kind in "qkv"})
    toys.add("fused", {f"{attention}qkv_proj.weight": (12, 4)})
    text = models(
        "model: fused",
        method="task_arithmetic",
        more="base_model: apart\nparameters: {weight: 1}\n",
    )
    with pytest.raises(MergeInputError, match="'fused' keeps its queries, keys and values in one"):
        toys.expand(text, allow_missing=True)
