"""What is refused although mergekit goes on: docs/mergekit.md's table, row by row."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mergepipe.errors import MergepipeError
from mergepipe.formats.restacking import LayerOrigin, restacked
from mergepipe.planner.mergekit.document import read_documents
from mergepipe.vocabularies.templates import chat_template
from tests.mergekit.toys import Toys, family, llama, llama_config

PACKAGE = Path(__file__).parents[2]
HEADING = "## Refused, though mergekit goes on"


def toys() -> Toys:
    made = family()
    made.add("liar", llama(4), llama_config(5))
    made.add("headless", llama(4, head=False), llama_config(4, architectures=["LlamaForCausalLM"]))
    made.add("more", llama(4, vocabulary=40), llama_config(4))
    bias = {"model.layers.0.self_attn.q_proj.bias": (8,)}
    made.add("biased", {**llama(4), **bias}, llama_config(4))
    counts = {"model.layers.0.steps": (4,)}
    for name in ("counts", "other"):
        made.add(name, {**llama(4), **counts}, llama_config(4), {"model.layers.0.steps": "I64"})
    towers = {
        f"{stack}.{layer}.mlp.up_proj.weight": (8, 8)
        for stack in ("vision_tower.encoder.layers", "language_model.model.layers")
        for layer in range(2)
    }
    made.add("seeing", towers, {"text_config": {"num_hidden_layers": 2}})
    first = {"model.layers.0.pre_norm.weight": (8,)}
    made.add("placed", {**llama(4), **first}, llama_config(4))
    return made


def expanding(text: str) -> Callable[[], object]:
    return lambda: toys().expand(text)


def stack(*ranges: str, model: str = "a") -> str:
    listed = "".join(f"- sources: [{{model: {model}, layer_range: {one}}}]\n" for one in ranges)
    return f"merge_method: passthrough\nslices:\n{listed}"


def linear(*names: str, more: str = "") -> str:
    listed = ", ".join(f"{{model: {name}}}" for name in names)
    return f"merge_method: linear\nmodels: [{listed}]\nparameters: {{weight: 1}}\n{more}"


def _ends_in_the_middle() -> object:
    config = {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
    return restacked(config, [LayerOrigin(config, layer) for layer in (0, 1, 1, 0)])


# The first column of the table -> how it comes to be.
EXAMPLES: dict[str, Callable[[], object]] = {
    "a key twice in one mapping": lambda: read_documents("a: 1\na: 2\n"),
    "YAML tags": lambda: read_documents("a: !!python/none 1\n"),
    "aliases that stand for very much": lambda: read_documents(
        f"a: &a [{'1, ' * 999}]\nb: [{'*a, ' * 999}]\n"
    ),
    "a layer range that goes backwards": expanding(stack("[3, 1]", "[0, 4]")),
    "slices without any layer": expanding(stack("[2, 2]")),
    "slices of a model of several modules": expanding(stack("[0, 1]", model="seeing")),
    "a module that `modules` does not name": expanding(
        "merge_method: passthrough\nmodules: {text_decoder: {models: [{model: seeing}]}}\n"
    ),
    "tensors that only some models have": expanding(linear("a", "biased")),
    "integers that differ": expanding(linear("counts", "other")),
    "embeddings of other sizes": expanding(linear("a", "more")),
    "the base twice": expanding(
        "merge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: base}, {model: base}]\n"
    ),
    "weights that sum to zero": expanding(
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, "
        "{model: b, parameters: {weight: -1}}]\n"
    ),
    "a dtype that is no float": expanding(linear("a", "b", more="dtype: int8\n")),
    "parameters out of their range": expanding(
        "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\nparameters: {density: 1.5}\n"
    ),
    "a config of other layers": expanding(linear("liar")),
    "a head that is not there": expanding(linear("headless")),
    "a config that cannot describe the stack": _ends_in_the_middle,
    "a layer out of its place": expanding(stack("[0, 2]", "[0, 2]", model="placed")),
    "a chat template that nobody knows": lambda: chat_template("vicunja", []),
}


def table() -> dict[str, str]:
    """First column -> the words that the error has."""
    text = (PACKAGE / "docs" / "mergekit.md").read_text()
    section = text.split(HEADING)[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in rows[1:]]
    assert all(len(row) == 3 and row[2] for row in cells), "what, the words, why"
    return {row[0]: row[1].strip("`") for row in cells}


def test_the_table_is_whole() -> None:
    assert list(table()) == list(EXAMPLES)


@pytest.mark.parametrize("row", EXAMPLES)
def test_what_the_table_says_is_refused(row: str) -> None:
    with pytest.raises(MergepipeError) as refused:
        EXAMPLES[row]()
    words = table()[row]
    assert words in f"{refused.value.message}\n{refused.value.hint}"
    # Words, not values: they stand in the code as they are here.
    pattern = re.escape(words).replace(r"\ ", r"(?:\s|\"\s*f?\")+")
    sources = [path.read_text() for path in (PACKAGE / "mergepipe").rglob("*.py")]
    assert any(re.search(pattern, source) for source in sources)
