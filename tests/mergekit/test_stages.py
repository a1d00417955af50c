"""Recipes of several stages: what one makes is what another takes in, and no file holds it."""

import pytest

from mergepipe.objects.records import FileEntry, Safetensors, Snapshot, TensorEntry
from mergepipe.planner.lines import Made
from tests.mergekit.expanding import line, q
from tests.mergekit.toys import Toys, family, llama


@pytest.fixture
def toys() -> Toys:
    return family()


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
