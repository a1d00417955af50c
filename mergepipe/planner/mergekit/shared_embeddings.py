"""Models whose output embeddings are their input embeddings (`tie_word_embeddings`).

What is shared is stored once, and it ends to be shared where a merge makes the two differ: by an
adapter that trained one of them, or by another model that has both. The result then has a head of
its own, and its config says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import (
    head_and_embeddings,
    read_architecture,
)
from mergepipe.names import quoted
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.output_head import has_output_embeddings


def without_copied_head(model: Inventory) -> Inventory:
    """A model without a head that is a copy of the embeddings that it shares.

    Merges and older versions of transformers store the copy too. It says nothing, and would make
    the result a model with two sets of embeddings. Where the config leaves open whether they are
    shared, it says so afterwards.
    """
    head, embeddings = head_and_embeddings(model.architecture)
    if head is None or embeddings is None or not model.architecture.tied or model.config is None:
        return model
    tensors = dict(model.tensors)
    if tensors.pop(head).source != model.tensors[embeddings].source:
        return model
    config = dict(model.config)
    if not any("tie_word_embeddings" in part for part in (config, *config.values())
               if isinstance(part, Mapping)):  # fmt: skip
        config["tie_word_embeddings"] = True
    architecture = read_architecture(tensors, config, model.label)
    return replace(model, tensors=tensors, config=config, architecture=architecture)


def shared_head(model: Inventory) -> str | None:
    """What the head of a model would be called that shares its embeddings with it; None: none."""
    embeddings = model.tied_head
    config: Mapping[str, Any] = model.config or {}
    if embeddings is None or embeddings not in model.tensors:
        return None
    if has_output_embeddings(config) is False:
        return None
    if config.get("model_type") == "gpt_neox":
        return "embed_out.weight"
    # Multi-modal models before transformers 4.52: the language model is a whole one inside.
    inside = embeddings.startswith("language_model.model.")
    return "language_model.lm_head.weight" if inside else "lm_head.weight"


def set_apart(model: Inventory, changed: dict[str, Held], head: str, label: str) -> None:
    """Give `changed` a head where an adapter, `label`, makes it and the embeddings differ.

    changed  the tensors that the adapter changes, the head called `head` among them
    head     of a model that shares its embeddings (`shared_head`)

    As while the adapter is in use: of the two, what it does not change stays as it was. Raises
    MergeInputError for models that compute otherwise with a head of their own.
    """
    embeddings = model.tied_head
    assert embeddings is not None
    before = model.tensors[embeddings]
    inner, outer = changed.get(embeddings, before), changed.get(head, before)
    if (inner.source, inner.factors) == (outer.source, outer.factors):
        changed.pop(head, None)
        return
    # T5 scales what comes before shared embeddings only.
    if model.config is not None and model.config.get("is_encoder_decoder"):
        raise MergeInputError(
            f"the adapter {quoted(label)} changes {quoted(embeddings)}, which "
            f"{quoted(model.label)} uses as its output embeddings too, and would set them apart",
            "train it with ensure_weight_tying, or leave the embeddings out of its modules",
        )
    changed[head] = outer


def with_tensors(model: Inventory, changed: Mapping[str, Held]) -> Inventory:
    """A model with other tensors in place of its own, or beside them."""
    tensors = {**model.tensors, **changed}
    if tensors.keys() == model.tensors.keys():
        return replace(model, tensors=tensors)
    architecture = read_architecture(tensors, model.config, model.label)
    return replace(model, tensors=tensors, architecture=architecture)
