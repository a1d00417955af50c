"""Models with the rows of another vocabulary, as docs/design/vocabularies.md tells it."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tests.compat.oracle import EMBEDDINGS, HEADS, references
from tests.compat.zoo_models import Model


def with_rows_of(
    models: Mapping[str, Model], document: Mapping[str, Any], tokens: Mapping[str, int] | None
) -> dict[str, Model]:
    """The models with a row for each token of the result.

    tokens  of the result, whose order is its own; None where there is no result to ask
    """
    names = list(dict.fromkeys(references(document)))
    base = models[names[0]]
    wanted = dict(base.tokens)
    if document["tokenizer_source"] == "union":
        for name in names:
            for token in models[name].tokens:
                wanted.setdefault(token, len(wanted))
    if tokens is not None:
        assert tokens.keys() == wanted.keys()
        assert all(tokens[token] == row for token, row in base.tokens.items())
        wanted = dict(tokens)
    found = {}
    for name, model in models.items():
        tensors = dict(model.tensors)
        for key in tensors:
            if key.endswith((*EMBEDDINGS, *HEADS)):
                tensors[key] = _rows(key, model, base, list(models.values()), wanted)
        config = copy.deepcopy(model.config)
        if model is base:
            config.get_text_config().vocab_size = len(wanted)
        found[name] = replace(model, tensors=tensors, tokens=wanted, config=config)
    return found


def _rows(
    key: str, model: Model, base: Model, models: list[Model], wanted: Mapping[str, int]
) -> np.ndarray:
    """One row per token: the model's own, else the base's, else the mean of those that know it."""
    rows = np.zeros((len(wanted), model.tensors[key].shape[1]))
    for token, row in wanted.items():
        chosen = next((one for one in (model, base) if token in one.tokens), None)
        holders = [chosen] if chosen else [one for one in models if token in one.tokens]
        rows[row] = np.mean([one.tensors[key][one.tokens[token]] for one in holders], axis=0)
    return rows
