"""The classes that outcomes belong to, each with its reason: whatever is in none is unexplained."""

import re
from collections.abc import Sequence

from tests.compat.zoo_configs import ZooConfig

# What a recipe may be refused for, by what the message says.
REFUSALS = (
    (r"the recipe says nothing of module 'proj_out'", "a head that the modules do not name"),
    (r"(predictions\.decoder|proj_out)\.weight', which .* lacks", "a head that only one model has"),
)
# What mergekit 0.1.5 stops with where a merge is well defined, and ours is that of float64.
FAILURES = (
    (r"LoRA not merged", "an adapter of an architecture that it has no table of"),
    (r"has no attribute num_hidden_layers", "finds no layer count in a config of several parts"),
    (r"experts\.(down|gate_up)_proj required", "asks for experts by their names in memory"),
    (r"required but not present", "asks for tensors that the checkpoints do not have"),
    (r"`get_input_embeddings` not auto", "asks CLIP for the one table of its tokens"),
    (r"must be equal to the number of `layer_types`", "writes a config with too few layer_types"),
    (r"Unrecognized model in .*/lora-", "an adapter that is named alone"),
    (r"Unrecognized model in .*/sdxl-", "a pipeline of several models"),
    (r"KeyError: \d+", "a token of a union that it finds no row for"),
)
# Methods in which a threshold decides; 16-bit weights have many of one magnitude.
AT_A_THRESHOLD = {"ties", "breadcrumbs", "breadcrumbs_ties", "sce"}
# Families whose names in memory are not those on disk: it writes what it finds by the former.
IN_MEMORY = {"vit", "clip", "gemma3", "qwen2_vl"}


def refusal(words: str) -> str:
    """The class of a refusal of ours."""
    for pattern, reason in REFUSALS:
        if re.search(pattern, words):
            return f"refused: {reason}"
    return "unexplained: refused"


def failure(error: str) -> str:
    """The class of an error of mergekit."""
    for pattern, reason in FAILURES:
        if re.search(pattern, error):
            return f"mergekit fails: {reason}"
    return f"unexplained error: {error[-300:]}"


def beside(
    config: ZooConfig, lacks: Sequence[str], adds: Sequence[str], apart: Sequence[str]
) -> str:
    """How mergekit's result differs from the exact one, where ours does not.

    lacks, adds  names of tensors that only the exact one has, or only mergekit's
    apart        what is to be said of tensors that differ by more than rounding
    """
    if lacks and all(".experts." in name or ".gate." in name for name in lacks):
        return "mergekit writes experts by their names in memory"
    if lacks and not adds and config.kind.family in IN_MEMORY:
        return "mergekit leaves out weights whose names in memory are others"
    if lacks or adds:
        return f"unexplained names: lacks {lacks[:5]}, adds {adds[:5]}"
    if not apart:
        return "the same"
    if "'bare'" in str(config.documents):
        return "mergekit passes over a model whose names are others"
    if config.methods & AT_A_THRESHOLD:
        return "the same but at thresholds"
    if config.adapters and config.kind.dtype != "float32":
        return "mergekit rounds an adapter into its model first"
    return "unexplained values"
