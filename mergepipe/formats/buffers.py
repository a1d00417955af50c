"""Buffers: tensors that a model computes from its config, and that some versions write down.

transformers stopped saving most of them, so one of two fine-tunes of a model may have them and the
other not. They are no weights: who lacks them lacks nothing (`_keys_to_ignore_on_load_unexpected`
and `register_buffer(..., persistent=False)` in transformers).
"""

import re

_NAMES = re.compile(
    r"(?:.*\.)?(?:"
    r"(?:original_)?inv_freq"
    r"|(?:cos|sin)_cached?"
    r"|position_ids|token_type_ids|relative_position_index"
    r"|masked_bias|causal_mask"
    r"|embed_positions\.weights"  # sinusoids; learned ones are called `weight`
    r")",
    re.DOTALL,
)
# A causal mask of GPT-2 and its like; a bias of the same name has one dimension.
_MASK = re.compile(r"(?:.*\.)?(?:attn|attention|self_attention)\.bias", re.DOTALL)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this name and shape follows from the config."""
    if _NAMES.fullmatch(name):
        return True
    return _MASK.fullmatch(name) is not None and len(shape) == 4 and shape[:2] == (1, 1)
