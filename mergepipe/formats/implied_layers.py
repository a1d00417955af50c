"""What models make of a layer by its number alone, where config.json has no list of layers.

Gemma 2 alternates sliding and full attention without a word in its config. A layer that moved would
become another, so its kind has to be written down, as the list that the model reads before it
counts. The rules are those of transformers 5 (configuration_*.py); a test goes through all of its
classes, and whatever they derive by number is in one of the two tables here.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Part: TypeAlias = Mapping[str, Any]
# A part of a config, the number of a layer and how many there are -> what the list says of it; None
# where that cannot be known.
Derivation: TypeAlias = Callable[[Part, int, int], Any]

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"


def implied(part: Part, key: str, layer: int, count: int) -> Any:
    """What list `key` says of a layer of a model of `count`; None where there is no saying."""
    given = part.get(key)
    if isinstance(given, list) and given:
        return given[layer] if layer < len(given) else None
    derivation = IMPLIED.get(key, {}).get(str(part.get("model_type"))) or _by_key(part, key)
    return None if derivation is None else derivation(part, layer, count)


def lists_of(part: Part) -> tuple[str, ...]:
    """The lists by layer that a model of this type has, written down or not."""
    kind = str(part.get("model_type"))
    return tuple(
        key for key, models in IMPLIED.items() if kind in models or _by_key(part, key) is not None
    )


def unwritten(part: Part) -> tuple[str, ...]:
    """Lists that a model of this type lacks, and derives in a way that is not known here."""
    lists = UNKNOWN.get(str(part.get("model_type")), ())
    return tuple(key for key in lists if not isinstance(part.get(key), list))


def _by_key(part: Part, key: str) -> Derivation | None:
    """How models of any type that have a key derive a list."""
    if key == "no_rope_layers" and type(part.get("no_rope_layer_interval")) is int:
        return _rotary
    windows = part.get("use_sliding_window") and type(part.get("max_window_layers")) is int
    return _windows if key == "layer_types" and windows else None


def _every(
    period: int | tuple[str, int],
    hit: Any = FULL,
    other: Any = SLIDING,
    *,
    first: int = 1,
    last: bool = False,
) -> Derivation:
    """Layers are `hit` where number + first is a multiple of a period, `last` the last one too.

    period  a number, or a key and its default; text is a pattern (`LLLG`, Exaone 4)
    """

    def kind(part: Part, layer: int, count: int) -> Any:
        every = period if isinstance(period, int) else part.get(*period)
        if last and layer == count - 1:
            return hit
        if isinstance(every, str) and every:
            return other if every[layer % len(every)] == "L" else hit
        if type(every) is not int or every < 1:
            return None
        return other if (layer + first) % every else hit

    return kind


def _dense(period: int | tuple[str, int]) -> Derivation:
    """The first layers are dense: so many, or as many as a key says."""

    def kind(part: Part, layer: int, count: int) -> Any:
        first = period if isinstance(period, int) else part.get(*period)
        every = part.get("moe_layer_freq", 1)
        if type(first) is not int or type(every) is not int:
            return None
        return "sparse" if layer >= first and layer % every == 0 else "dense"

    return kind


def _windows(part: Part, layer: int, count: int) -> Any:
    """Qwen: the lower layers see everything."""
    if not part.get("use_sliding_window") or part.get("sliding_window", 4096) is None:
        return FULL
    first = part.get("max_window_layers", 28)
    return None if type(first) is not int else SLIDING if layer >= first else FULL


def _windows_between(part: Part, layer: int, count: int) -> Any:
    """Qwen 2 MoE: every other of the lower layers slides."""
    first = part.get("max_window_layers", 28)
    slides = part.get("use_sliding_window") and (layer + 1) % 2 and layer < first
    return SLIDING if slides else FULL


def _chunks(part: Part, layer: int, count: int) -> Any:
    """Llama 4: layers without rotary positions attend to everything."""
    rotary = implied(part, "no_rope_layers", layer, count)
    return None if rotary is None else "chunked_attention" if rotary else FULL


def _rotary(part: Part, layer: int, count: int) -> Any:
    every = part.get("no_rope_layer_interval", 4)
    return int((layer + 1) % every != 0) if type(every) is int and every > 0 else None


def _named(key: str, hit: str, other: str) -> Derivation:
    """Layers are `hit` where a list of numbers names them."""

    def kind(part: Part, layer: int, count: int) -> Any:
        numbers = part.get(key)
        return hit if numbers is None or layer in numbers else other

    return kind


def _some(hit: Callable[[int, int], bool]) -> Derivation:
    """Full attention where a function of the number and the count says so."""
    return lambda part, layer, count: FULL if hit(layer, count) else SLIDING


_PATTERN = "sliding_window_pattern"
_INTERVAL = _every(("full_attention_interval", 4), FULL, LINEAR)
_GEMMA = _every((_PATTERN, 6))
_GEMMA_LAST = _every((_PATTERN, 6), last=True)
_LAYER_TYPES: Mapping[str, Derivation] = {
    "afmoe": _every(("global_attn_every_n_layers", 4)),
    "bailing_hybrid": _every(("layer_group_size", 6), FULL, LINEAR),
    "beam": _every(6, last=True),
    "cohere2": _every((_PATTERN, 4)),
    "cwm": _every(4, first=0),
    **dict.fromkeys(("diffusion_gemma_text", "neomme"), _every(6, last=True)),
    **dict.fromkeys(("exaone4", "exaone_moe"), _every((_PATTERN, 4))),
    "flint": _some(lambda layer, count: layer < 2 or layer % 4 == 1 or layer == count - 1),
    **dict.fromkeys(("gemma2", "gpt_oss", "vaultgemma", "t5_gemma_module"), _every(2)),
    **dict.fromkeys(("gemma3", "gemma3_text", "t5gemma2_text", "t5gemma2_decoder"), _GEMMA),
    **dict.fromkeys(("gemma3n_text", "kolibri1"), _every(5)),
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text", "embedding_gemma2_text"), _GEMMA_LAST),
    **dict.fromkeys(("granite_swa", "granitemoe_swa"), _every(4, first=0)),
    "lfm2": _named("full_attn_idxs", FULL, "conv"),
    "llama4_text": _chunks,
    "mimo_v2_flash": _some(lambda layer, count: layer == 0 or (layer + 1) % 6 == 0),
    "minimax": _every(2, LINEAR, FULL),
    **dict.fromkeys(
        ("modernbert", "modernbert-decoder"), _every(("global_attn_every_n_layers", 3), first=0)
    ),
    "olmo3": _every(4),
    "olmo_hybrid": _every(4, FULL, LINEAR),
    **dict.fromkeys(
        ("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), _windows
    ),
    **dict.fromkeys(("qwen3", "dots1"), _windows),
    "qwen2_moe": _windows_between,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _INTERVAL),
    "ultrabert": _every(3),
}
_MLP_LAYER_TYPES: Mapping[str, Derivation] = {
    **dict.fromkeys(("axk1", "axk2", "unlimited_ocr_text"), _dense(("first_k_dense_replace", 1))),
    **dict.fromkeys(("exaone_moe", "kimi_linear"), _dense(("first_k_dense_replace", 1))),
    "bailing_hybrid": _dense(("first_k_dense_replace", 2)),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), _dense(("first_k_dense_replace", 3))),
    "beam": _dense(3),
    **dict.fromkeys(
        ("ernie4_5_vl_moe_text", "glm4_moe_lite", "hy_v3", "laguna", "mimo_v2_flash"), _dense(1)
    ),
}
# List -> model_type -> how it follows from the numbers of the layers.
IMPLIED: Mapping[str, Mapping[str, Derivation]] = {
    "layer_types": _LAYER_TYPES,
    "mlp_layer_types": _MLP_LAYER_TYPES,
    "no_rope_layers": dict.fromkeys(("llama4_text", "smollm3"), _rotary),
}
# Models whose lists follow from their numbers in ways of their own: model_type -> lists. Their
# config.json as transformers writes it has the lists.
UNKNOWN: Mapping[str, tuple[str, ...]] = {
    "cohere2_moe": ("layer_types", "mlp_layer_types"),
    "deepseek_v4": ("layer_types", "mlp_layer_types"),
    "dots3_note_text": ("layer_types", "mlp_layer_types"),
    "gemma3n_text": ("activation_sparsity_pattern",),
    "glm5_next_text": ("layer_types", "mlp_layer_types"),
    "hy_v4": ("mlp_layer_types", "indexer_types"),
    "inkling_text": ("layer_types",),
    "inkling2_text": ("layer_types",),
    "kimi_linear": ("layer_types",),
    "lfm3": ("layer_types",),
    "lfm3_vl_vision": ("layer_types",),
    "mistral_large4_text": ("mlp_layer_types", "no_rope_layers", "kv_source_layers"),
    "muse_glimmer_text": ("layer_types", "layer_rope_theta"),
    "muse_glimmer_vision": ("layer_types",),
    "muse_spark_text": ("layer_types", "layer_rope_theta"),
    "muse_spark_vision": ("layer_types",),
    "qwen4_exp_text": ("layer_types",),
    "rf_detr_dinov2": ("window_block_indexes",),
    "step3p5": ("mlp_layer_types",),
    "zamba": ("layers_block_type",),
}
