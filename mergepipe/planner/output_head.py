"""Output embeddings that a model's config.json promises: whether there are any."""

from collections.abc import Mapping
from typing import Any

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import Architecture, Section, head_and_embeddings
from mergepipe.formats.tied_embeddings import tied
from mergepipe.names import quoted

# Classes of transformers with output embeddings; others use the input embeddings alone.
_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "DoubleHeadsModel")


def has_output_embeddings(config: Mapping[str, Any]) -> bool | None:
    """Whether the class of a model has output embeddings; None where its config names none."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes:
        return None
    return str(classes[0]).endswith(_WITH_HEAD)


def check_head(
    shapes: Mapping[str, tuple[int, ...]],
    architecture: Architecture,
    config: Mapping[str, Any],
    label: str,
) -> None:
    """Raise MergeInputError where a config promises a head of its own and no tensor can be it.

    shapes  of a result's tensors, by name
    label   of the model whose config it is
    """
    if tied(config) or not has_output_embeddings(config):
        return
    head, embeddings = head_and_embeddings(architecture)
    if head is not None or embeddings is None:
        return
    # Heads have other names too (`output.weight`), but always a row for each token.
    if not any(
        spot.section is not Section.LAYER
        and name != embeddings
        and shapes[name] == shapes[embeddings]
        for name, spot in architecture.spots.items()
    ):
        raise MergeInputError(
            f"config.json of {quoted(label)} says that it has output embeddings of its own "
            "(tie_word_embeddings: false), and the result would have none",
            "are all of its files there? If it shares its embeddings, say so in its config.json "
            "(tie_word_embeddings: true)",
        )
