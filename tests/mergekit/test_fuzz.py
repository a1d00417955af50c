"""Recipes that were tampered with: an answer or a typed error, never anything else."""

import json
import os
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import MergepipeError
from mergepipe.planner.mergekit.document import plain, read_documents
from tests.mergekit.checkpoints import tokenizer
from tests.mergekit.toys import Toys, llama, llama_config

EXAMPLES = int(os.environ.get("EXAMPLES", "20"))
"""Five times as many recipes, and texts, are tampered with; `make torture` takes more."""
TOYS = Toys()
for name in ("a", "b", "base"):
    files = {"tokenizer.json": json.dumps(tokenizer(32)).encode()}
    TOYS.add(name, llama(4), llama_config(4), files=files)
RECIPE: dict[str, Any] = {
    "merge_method": "ties",
    "base_model": "base",
    "slices": [
        {
            "sources": [
                {"model": "a", "layer_range": [0, 2], "parameters": {"weight": [0, 1]}},
                {"model": {"model": {"path": "b"}}, "layer_range": [1, 3]},
                {"model": "base", "layer_range": [0, 2]},
            ],
            "parameters": {"density": [{"filter": "mlp", "value": [0.2, 0.5]}, {"value": "1e-1"}]},
        },
    ],
    "parameters": {"weight": 1, "normalize": True},
    "dtype": "bfloat16",
    "tokenizer": {"source": "base", "tokens": {"x": {"source": {"kind": "zero"}, "force": True}}},
    "chat_template": "auto",
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["a", "b", "base", "c", "linear", "union", "*", "zero", "", "a+b", "a@1", "1e9"]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["model", "value", "filter", "kind", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return {key: replaced(one, path[1:], new) if key == path[0] else one
                for key, one in value.items()}  # fmt: skip
    return [
        replaced(one, path[1:], new) if place == path[0] else one for place, one in enumerate(value)
    ]


def test_the_recipe_is_good() -> None:
    assert len(TOYS.expand(yaml.safe_dump(RECIPE)).written) == len(llama(2))


@settings(max_examples=5 * EXAMPLES)
@given(st.data())
def test_values_of_the_wrong_kind(data: st.DataObject) -> None:
    document = RECIPE
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(document)))
        document = replaced(document, path, data.draw(VALUES))
    text = yaml.safe_dump(document)
    try:
        expanded = TOYS.expand(text)
    except MergepipeError as error:
        assert error.exit_code in (2, 12, 13)
        assert "r.yml" in error.message
    else:
        assert expanded.written


@settings(max_examples=5 * EXAMPLES)
@given(st.one_of(st.text(max_size=60), st.text("[]{}:,-&*!|>'\"#?%@ \n\tab1", max_size=60)))
def test_texts(text: str) -> None:
    try:
        documents = read_documents(text, "r.yml")
    except MergepipeError as error:
        assert error.exit_code == 2
        return
    for document in documents:
        plain(document)
