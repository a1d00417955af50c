"""What recipes come to, line by line. The numbers are those of mergekit 0.1.5 on such models."""

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.objects.merging import TermKind
from mergepipe.objects.records import FileEntry, Safetensors, Snapshot, TensorEntry
from mergepipe.planner.left_out import Kind, LeftOut
from mergepipe.planner.lines import Line, Made
from mergepipe.planner.mergekit.expanded import Expanded
from tests.mergekit.toys import Toys, family, llama, llama_config


@pytest.fixture
def toys() -> Toys:
    return family()


def line(merge: Expanded, name: str) -> Line:
    return next(one for one in merge.written if one.name == name)


def q(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.q_proj.weight"


def weights(merge: Expanded, name: str, key: str = "weight") -> list[object]:
    return [own[key] for own in line(merge, name).settings.experts]


def sources(toys: Toys, merge: Expanded, name: str) -> list[str]:
    return [toys.owner(one.source) for one in line(merge, name).inputs]


def models(*entries: str, method: str = "linear", more: str = "") -> str:
    listed = "".join(f"- {entry}\n" for entry in entries)
    return f"merge_method: {method}\nmodels:\n{listed}{more}"


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


def test_a_tied_head_is_absent_or_the_embeddings(toys: Toys) -> None:
    tied = llama_config(4, tie_word_embeddings=True)
    for name in ("ta", "tb"):
        toys.add(name, llama(4, head=False), tied)
    both = toys.expand(models("model: ta", "model: tb", more="parameters: {weight: 1}"))
    assert "lm_head.weight" not in [one.name for one in both.written]
    assert both.output.config == tied
    for text in (("a", "tb"), ("tb", "a")):
        one = toys.expand(
            models(*(f"model: {name}" for name in text),
                   more="parameters: {weight: [{filter: lm_head, value: 3}, {value: 1}]}")
        )  # fmt: skip
        held = {"a": "a:lm_head.weight", "tb": "tb:model.embed_tokens.weight"}
        assert sources(toys, one, "lm_head.weight") == [held[name] for name in text]
        assert weights(one, "lm_head.weight") == [3.0, 3.0]
        assert one.output.config is not None
        assert one.output.config["tie_word_embeddings"] is False
    toys.add("broken", llama(4, head=False), llama_config(4))
    with pytest.raises(MergeInputError, match=r"'broken' lacks tensor 'lm_head\.weight'"):
        toys.expand(models("model: a", "model: broken", more="parameters: {weight: 1}"))


def test_a_copy_of_shared_embeddings_is_no_head(toys: Toys) -> None:
    head, embeddings = "lm_head.weight", "model.embed_tokens.weight"
    for name, more in (("said", {"tie_word_embeddings": True}), ("unsaid", {})):
        config = {key: value for key, value in llama_config(4).items() if "tie" not in key} | more
        toys.add(name, llama(4), config | {"model_type": "gemma"})
        snapshot = toys.snapshot(toys.named[name])
        (file,) = [one for one in snapshot.files if isinstance(one.content, Safetensors)]
        assert isinstance(file.content, Safetensors)
        ids = {entry.name: entry.tensor for entry in file.content.tensors}
        entries = [TensorEntry(one, ids[embeddings if one == head else one]) for one in llama(4)]
        content = Safetensors(file.content.header, tuple(entries))
        others = tuple(one for one in snapshot.files if one is not file)
        copied = toys.put(Snapshot((*others, FileEntry(file.path, False, 8, content))))
        toys.files[copied] = toys.files[toys.named[name]]
        toys.named[name] = copied
    both = toys.expand(models("model: said", "model: unsaid", more="parameters: {weight: 1}"))
    alone = toys.expand("merge_method: passthrough\nmodels: [{model: unsaid}]\n")
    for merge in (both, alone):
        assert head not in [one.name for one in merge.written]
        assert merge.output.config is not None
        assert merge.output.config["tie_word_embeddings"] is True
    mixed = toys.expand(models("model: a", "model: said", more="parameters: {weight: 1}"))
    # One stored tensor under two names, of which `owner` says the first.
    assert sources(toys, mixed, head) == ["a:lm_head.weight", "said:lm_head.weight"]


def test_a_result_has_the_head_that_its_config_speaks_of(toys: Toys) -> None:
    head = "lm_head.weight"
    toys.add("tied", llama(4, head=False), llama_config(4, tie_word_embeddings=True))
    text = """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: tied, layer_range: [2, 4]}]
"""
    stacked = toys.expand(text)
    assert sources(toys, stacked, head) == ["tied:model.embed_tokens.weight"]
    assert stacked.output.config is not None
    assert stacked.output.config["tie_word_embeddings"] is False
    says = llama_config(4, architectures=["LlamaForCausalLM"])
    toys.add("broken", llama(4, head=False), says)
    with pytest.raises(MergeInputError, match="output embeddings of its own"):
        toys.expand("merge_method: passthrough\nmodels: [{model: broken}]\n")
    toys.add("encoder", llama(4, head=False), says | {"architectures": ["LlamaModel"]})
    toys.expand("merge_method: passthrough\nmodels: [{model: encoder}]\n")


STAGES = """
name: first
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
---
merge_method: task_arithmetic
base_model: base
models: [{model: first, parameters: {weight: 2}}, {model: second, parameters: {weight: 3}}]
---
name: second
merge_method: passthrough
models: [{model: c}]
parameters: {scale: 2}
dtype: float64
"""


def test_stages_are_lines_that_no_file_holds(toys: Toys) -> None:
    merge = toys.expand(STAGES)
    assert [one.name for one in merge.written] == list(llama(4))
    made = line(merge, q(0))
    assert made.base is not None
    assert toys.owner(made.base.source) == f"base:{q(0)}"
    below = []
    for one in made.inputs:
        assert isinstance(one.source, Made)
        below.append(merge.lines[one.source.line])
        assert one.source.line < merge.lines.index(made)
    assert [one.name for one in below] == [f"first:{q(0)}", f"second:{q(0)}"]
    assert [one.file for one in below] == [None, None]
    assert [one.dtype.name for one in (*below, made)] == ["F32", "F64", "F64"]
    assert [one.label for one in merge.models] == ["a", "b", "c", "base"]


def test_a_stack_made_of_a_stage(toys: Toys) -> None:
    merge = toys.expand(
        """
name: tall
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 3]}]
- sources: [{model: b, layer_range: [1, 4]}]
---
merge_method: passthrough
slices:
- sources: [{model: tall, layer_range: [2, 6]}]
"""
    )
    made = line(merge, q(1))
    assert isinstance(made.inputs[0].source, Made)
    below = merge.lines[made.inputs[0].source.line]
    assert (below.name, toys.owner(below.inputs[0].source)) == (f"tall:{q(3)}", f"b:{q(1)}")
    assert merge.output.config is not None
    assert merge.output.config["num_hidden_layers"] == 4


def test_layouts_name_the_files(toys: Toys) -> None:
    expanded = toys.expand(STAGES)
    files = {f"{number}.safetensors": one for number, one in enumerate(reversed(expanded.written))}
    layout = Snapshot(
        tuple(
            FileEntry(path, False, 8, Safetensors(one.like, (TensorEntry(one.name, one.like),)))
            for path, one in files.items()
        )
    )
    merge = expanded.laid_out(layout, toys.named["a"], 7, toys.tensor)
    written = [one for one in merge.lines if one.file is not None]
    assert [(one.file, one.name) for one in written] == [
        (path, one.name) for path, one in files.items()
    ]
    for one in written:  # what they take in are the same lines, wherever those are now
        before = line(expanded, one.name)
        for now, then in zip(one.inputs, before.inputs, strict=True):
            if isinstance(then.source, Made):
                assert isinstance(now.source, Made)
                assert merge.lines[now.source.line] == expanded.lines[then.source.line]
    assert (merge.seed, merge.base, merge.layout) == (7, expanded.base, toys.named["a"])


LORA = b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4}'


def add_adapter(toys: Toys) -> None:
    toys.add(
        "lora",
        {
            f"base_model.model.{q(1).removesuffix('.weight')}.lora_A.weight": (2, 8),
            f"base_model.model.{q(1).removesuffix('.weight')}.lora_B.weight": (8, 2),
        },
        files={"adapter_config.json": LORA},
        weights="adapter_model.safetensors",
    )


def test_adapters_on_models(toys: Toys) -> None:
    add_adapter(toys)
    for named in ("a+lora", "{model: a, lora: lora}", "{model: {path: a}, lora: {path: lora}}"):
        merge = toys.expand(models(f"model: {named}", "model: b", more="parameters: {weight: 1}"))
        changed = line(merge, q(1)).inputs
        assert [one.factors is not None for one in changed] == [True, False]
        factors = changed[0].factors
        assert factors is not None
        assert (factors.scale, toys.owner(changed[0].source)) == (2.0, f"a:{q(1)}")
        assert toys.owner(factors.up).endswith("lora_B.weight")
        assert line(merge, q(0)).inputs[0].factors is None
        assert [one.label for one in merge.models] == ["a", "lora", "b"]


@pytest.mark.parametrize("named", ["lora", "base+lora"])
def test_an_adapter_of_the_base_is_a_difference(toys: Toys, named: str) -> None:
    add_adapter(toys)
    merge = toys.expand(
        models(f"model: {named}", "model: a", method="ties",
               more="base_model: base\nparameters: {weight: 1, density: 0.5}")
    )  # fmt: skip
    changed, full = line(merge, q(1)).inputs
    assert (changed.kind, changed.source, full.kind) == (TermKind.LOW_RANK, None, TermKind.FULL)
    assert merge.models[changed.model].label == "lora"
    untouched = line(merge, q(0)).inputs[0]
    assert untouched.source is None or toys.owner(untouched.source) == f"base:{q(0)}"


GEMMA = {
    "language_model.model.embed_tokens.weight": (32, 8),
    **{f"language_model.model.layers.{n}.mlp.up_proj.weight": (16, 8) for n in range(2)},
    "language_model.model.norm.weight": (8,),
    "multi_modal_projector.mm_input_projection_weight": (8, 8),
    "vision_tower.vision_model.embeddings.patch_embedding.weight": (8, 3),
    **{f"vision_tower.vision_model.encoder.layers.{n}.mlp.fc1.weight": (8, 8) for n in range(3)},
    "vision_tower.vision_model.post_layernorm.weight": (8,),
}
GEMMA_CONFIG = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 2}}


def test_modules(toys: Toys) -> None:
    for name in ("ga", "gb"):
        toys.add(name, GEMMA, GEMMA_CONFIG)
    whole = toys.expand(
        models("model: ga", "model: gb", more="parameters: {weight: [{value: [1, 2]}]}")
    )
    assert [one.name for one in whole.written] == list(GEMMA)
    up = "language_model.model.layers.1.mlp.up_proj.weight"
    fc = "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"
    assert (weights(whole, up), weights(whole, fc)) == ([2.0, 2.0], [1.5, 1.5])
    stacked = toys.expand(
        """
merge_method: passthrough
modules:
  text_decoder:
    slices:
    - sources: [{model: ga, layer_range: [0, 1]}]
    - sources: [{model: gb, layer_range: [0, 2]}]
  vision_tower: {models: [{model: gb}]}
  multi_modal_projector: {models: [{model: ga}]}
"""
    )
    up = "language_model.model.layers.2.mlp.up_proj.weight"
    assert sources(toys, stacked, up) == ["gb:language_model.model.layers.1.mlp.up_proj.weight"]
    assert sources(toys, stacked, fc) == [f"gb:{fc}"]
    config = stacked.output.config
    assert config is not None
    assert config["text_config"]["num_hidden_layers"] == 3


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


def test_a_module_without_tensors_is_told(toys: Toys) -> None:
    plain = {name: size for name, size in GEMMA.items() if not name.startswith("multi_modal")}
    for name in ("ga", "gb"):
        toys.add(name, plain, GEMMA_CONFIG)
    merge = toys.expand(
        """
merge_method: passthrough
modules:
  text_decoder: {models: [{model: gb}]}
  vision_tower: {models: [{model: ga}]}
  multi_modal_projector: {models: [{model: ga}]}
"""
    )
    assert {one.name for one in merge.written} == set(plain)
    told = "'gb' has no tensors of a module 'multi_modal_projector': what is said of it has no"
    assert any(told in text for text in merge.warnings)


TEXT_OF_GEMMA = {
    name.removeprefix("language_model."): size
    for name, size in GEMMA.items()
    if name.startswith("language_model.")
}
TASK = "parameters: {weight: 1}\nbase_model: "


def test_a_language_model_merges_into_a_larger_one_and_back(toys: Toys) -> None:
    toys.add("vlm", GEMMA, GEMMA_CONFIG)
    toys.add("llm", TEXT_OF_GEMMA, {"num_hidden_layers": 2})
    into = toys.expand(models("model: llm", method="task_arithmetic", more=TASK + "vlm\n"))
    assert [one.name for one in into.written] == list(GEMMA)
    up = "language_model.model.layers.1.mlp.up_proj.weight"
    assert sources(toys, into, up) == ["llm:model.layers.1.mlp.up_proj.weight"]
    fc = "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"
    assert line(into, fc).inputs[0].source is None
    left = into.left_out[0]
    assert (left.kind, left.model) == (Kind.MISSING_TENSORS, "llm")
    assert set(left.names) == {name for name in GEMMA if name[0] != "l"}
    assert "'llm' lacks 6 tensors; it adds nothing" in left.message

    back = toys.expand(models("model: vlm", method="task_arithmetic", more=TASK + "llm\n"))
    assert [one.name for one in back.written] == list(TEXT_OF_GEMMA)
    assert sources(toys, back, "model.norm.weight") == ["vlm:language_model.model.norm.weight"]
    assert back.left_out[0].kind is Kind.EXTRA_TENSORS
    assert set(back.left_out[0].names) == set(left.names)

    together = models("model: vlm", "model: llm", more="parameters: {weight: 1}\n")
    with pytest.raises(MergeInputError, match="'llm' has no module") as caught:
        toys.expand(together, allow_missing=True)
    assert "under modules:" in caught.value.hint
    apart = toys.expand(
        """
merge_method: linear
modules:
  text_decoder: {models: [{model: vlm}, {model: llm}]}
  vision_tower: {models: [{model: vlm}]}
  multi_modal_projector: {models: [{model: vlm}]}
parameters: {weight: 1}
"""
    )
    assert [one.name for one in apart.written] == list(GEMMA)
    assert len(sources(toys, apart, up)) == 2


def test_a_model_without_a_module_is_refused_unless_allowed(toys: Toys) -> None:
    toys.add("ga", GEMMA, GEMMA_CONFIG)
    less = {name: size for name, size in GEMMA.items() if not name.startswith("multi_modal")}
    toys.add("less", less, GEMMA_CONFIG)
    text = models("model: less", method="task_arithmetic", more=TASK + "ga\n")
    with pytest.raises(MergeInputError, match="'less' has no module 'multi_modal_projector'"):
        toys.expand(text)
    [left] = toys.expand(text, allow_missing=True).left_out
    assert left.names == ("multi_modal_projector.mm_input_projection_weight",)
    text = models("model: ga", method="task_arithmetic", more=TASK + "less\n")
    with pytest.raises(MergeInputError, match="'ga' has tensor 'multi_modal_projector"):
        toys.expand(text)
