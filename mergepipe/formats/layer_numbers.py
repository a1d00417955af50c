"""Keys of a config.json that speak of layers by their number, and the rule of each.

A moved layer has another number, and transformers builds it by that: with experts or without, with
rotary positions or not. A rule brings its keys to the new numbers, so that every layer is built as
in the model that it came from, or refuses them by name where they cannot say that. The keys are
those of transformers 5 (configuration_*.py and modeling_*.py) and of models that bring their own
code; lists with an entry per layer follow whatever they are called (`restacking`).
"""

import re
from collections.abc import Sequence
from typing import Any

from mergepipe.formats.expert_layers import Between, DenseFirst, Interleaved, SparseSteps
from mergepipe.formats.layer_rules import (
    First,
    Groups,
    Layer,
    Numbers,
    OfType,
    PerDepth,
    Period,
    Pinned,
    Repeated,
    Rule,
    Shifted,
    Stages,
    Unmoved,
)
from mergepipe.formats.layer_sharing import SharedAtTop, SharedFromBelow, Sources

RULES: tuple[Rule, ...] = (
    Numbers(("moe_layers", "moe_layers_enum", "cross_attention_layers", "attn_layer_indices")),
    Numbers(("full_attn_idxs", "fullatt_block_indexes", "global_attn_indexes", "local_layer_ids")),
    Numbers(("global_attention_layers", "window_block_indices", "window_block_indexes")),
    Numbers(("residual_block_indices", "rope_scaling_layers", "subsample_layers")),
    Numbers(("hybrid_layer_ids",)),
    Numbers(("look_ahead_layers", "look_backward_layers", "dense_layers_idx")),
    Numbers(("ple_layer_ids",), first=1),
    Numbers(("kda_layers", "full_attn_layers"), first=1, within="linear_attn_config"),
    DenseFirst(),
    First(("num_first_full_attention_layers",)),
    SparseSteps(),
    Interleaved(),
    Between(),
    Period(("attn_layer_period", "attn_layer_offset")),
    Period(("expert_layer_period", "expert_layer_offset")),
    SharedAtTop(),
    Sources(),
    SharedFromBelow(),
    Repeated(),
    Groups(),
    PerDepth(),
    Shifted(("sliding_window_pattern",), "layer_types"),
    Shifted(("full_attention_interval",), "layer_types"),
    Shifted(("global_attn_every_n_layers",), "layer_types"),
    Shifted(("layer_group_size",), "layer_types"),
    Shifted(("index_topk_freq",), "indexer_types"),
    Shifted(("moe_layer_frequency",)),
    Shifted(("moe_every_n_layers",)),
    Shifted(("cross_attn_every_n_layers",)),
    Shifted(("cross_attention_frequency",)),
    Shifted(("cross_layer_interval",)),
    Shifted(("dense_attention_every_n_layers",)),
    Shifted(("attn_every_k_layers",)),
    Shifted(("hybrid_layer_period",)),
    Shifted(("n_layers_per_attn_res_block",)),
    Unmoved(("num_last_full_attention_layers", "num_hidden_groups", "num_mem_blocks")),
    Unmoved(("hidden_size_per_layer_input", "scale_attn_by_inverse_layer_idx")),
    Unmoved(("aligner_num_add_layers", "num_sparse_encoder_layers", "num_sparse_decoder_layers")),
    Unmoved(("encoder_sparse_step", "cla_share_factor", "mb_per_layer", "conditional_layer")),
    Stages(),
    Unmoved(("intermediate_layers_indices", "spatial_target_layers")),
    Unmoved(("deepstack_visual_indexes", "intermediate_hidden_state_indices", "extract_layers")),
    Unmoved(("backbone_out_indices", "intermediate_hook_ids", "cat_hidden_layers")),
    # Initial weights of differential attention, slopes of lightning attention, residual scales.
    OfType(
        numbers=("diffllama", "minimax", "beam", "albert"), counts=("minimax", "esmc", "albert")
    ),
)
RULED = frozenset(key for rule in RULES for key in rule.keys)
# Drafts (EAGLE-3, DFlash) name layers of the model that they draft for, not their own.
OF_ANOTHER_MODEL = (
    *("eagle_aux_hidden_state_layer_ids", "aux_hidden_state_layer_ids", "target_layer_ids"),
)
# Keys that no rule knows, and that name layers by what they are called.
_UNKNOWN = Pinned(
    pattern=re.compile(r"layers?_(ids?|idxs?|index|indexes|indices)$|(^|_)exit(_layers?)?$"),
    apart=RULED | {*OF_ANOTHER_MODEL, "mtp_local_layer_ids"},
)


def renumber(part: dict[str, Any], layers: Sequence[Layer]) -> None:
    """Bring every key of `part` that has a rule to these layers, bottom first."""
    for rule in RULES:
        rule.follow(part, layers)
    _UNKNOWN.follow(part, layers)
