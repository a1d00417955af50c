"""Models of several modules: merged whole, module by module, and with models of fewer."""

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.plans.left_out import Kind
from tests.mergekit.expanding import GEMMA, GEMMA_CONFIG, line, models, sources, weights
from tests.mergekit.toys import Toys, family


@pytest.fixture
def toys() -> Toys:
    return family()


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
