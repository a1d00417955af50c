"""Tiny models of the architectures that people merge, made by transformers from configs.

A family says how its model is made and run, where its layers are on disk, and what an adapter may
train. Everything is a function of a seed; nothing is downloaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf

VOCABULARY, HIDDEN, LAYERS = 64, 32, 3
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 48,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOWER = {
    "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 16, "patch_size": 4,
}  # fmt: skip
TOKENS = [[5, 9, 17, 33, 21, 9, 40, 3, 12, 25, 50, 7]]

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """An architecture.

    config    what its class is made from
    inputs    what a forward pass takes
    stacks    module -> prefix of its layers' names on disk
    after     how the names of what comes after the layers begin
    counts    module -> where the config counts its layers, in a model of several stacks
    first     what only the first of a stack's layers has
    parts     modules without layers -> how their names begin
    homes     how the names of what is elsewhere begin -> its module
    tied      whether embeddings are shared by default; None where there is no head to share
    sliced    whether its layers may be stacked anew
    prefix    of all names, which a model saved by its class without a head lacks
    words     whether tokens are rows of its embeddings alone, so that vocabularies can differ
    targets   what an adapter may train, by the names in memory
    saved     modules that an adapter may train whole
    """

    name: str
    model: type
    config: Callable[[], Any]
    inputs: Callable[[], Inputs]
    stacks: Mapping[str, str]
    after: tuple[str, ...] = ()
    counts: Mapping[str, str] = field(default_factory=dict)
    first: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    tied: bool | None = None
    sliced: bool = False
    prefix: str = ""
    words: bool = False
    targets: tuple[str, ...] = ("q_proj", "v_proj", "down_proj", "gate_proj")
    saved: tuple[str, ...] = ()
    lora: Mapping[str, Any] = field(default_factory=dict)


def _tokens() -> Inputs:
    return {"input_ids": torch.tensor(TOKENS)}


def _pixels() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()


def _decoder(name: str, model: type, config: Callable[[], Any], **more: Any) -> Family:
    return Family(
        name, model, config, more.pop("inputs", _tokens),
        more.pop("stacks", {"default": "model.layers"}),
        after=more.pop("after", ("model.norm.", "lm_head.")),
        tied=more.pop("tied", False), sliced=True, words=True, **more,
    )  # fmt: skip


def _qwen3_moe() -> Any:
    return hf.Qwen3MoeConfig(
        **TEXT, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        mlp_only_layers=[1],
    )  # fmt: skip


def _deepseek() -> Any:
    return hf.DeepseekV3Config(
        **{**TEXT, "num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
        topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1, q_lora_rank=16,
        kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, n_shared_experts=1,
    )  # fmt: skip


def _t5() -> Any:
    return hf.T5Config(
        vocab_size=VOCABULARY, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=2,
        num_heads=4, decoder_start_token_id=0,
    )  # fmt: skip


def _whisper() -> Any:
    return hf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=HIDDEN, encoder_layers=3, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
        decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=8, max_target_positions=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip


def _clip() -> Any:
    text = {**TEXT, "max_position_embeddings": 16, "projection_dim": 16}
    del text["num_key_value_heads"]
    return hf.CLIPConfig(
        text_config=text, vision_config={**TOWER, "projection_dim": 16}, projection_dim=16
    )


def _qwen2_vl() -> Any:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    tower = {
        "depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": 4, "patch_size": 4,
        "mlp_ratio": 2,
    }  # fmt: skip
    return hf.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": rope, "tie_word_embeddings": False},
        vision_config=tower, image_token_id=60, vision_start_token_id=61, vision_end_token_id=62,
        video_token_id=63, tie_word_embeddings=False,
    )  # fmt: skip


def _qwen2_vl_inputs() -> Inputs:
    pixels = torch.randn(4, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(4)).double()
    return {
        "input_ids": torch.tensor([[61, 60, 62, 5, 9, 17]]),
        "mm_token_type_ids": torch.tensor([[0, 1, 0, 0, 0, 0]]),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, 2, 2]]),
    }


def _gemma3() -> Any:
    return hf.Gemma3Config(
        text_config={**TEXT, "head_dim": 8, "sliding_window": 4, "layer_types": _ALTERNATING},
        vision_config=TOWER, mm_tokens_per_image=4, image_token_index=60, boi_token_index=61,
        eoi_token_index=62,
    )  # fmt: skip


def _gemma3_inputs() -> Inputs:
    return {
        "input_ids": torch.tensor([[61, 60, 60, 60, 60, 62, 5, 9, 17]]),
        "token_type_ids": torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 0]]),
        "pixel_values": _pixels(),
    }


def _bert() -> Any:
    return hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=4, max_position_embeddings=16,
    )  # fmt: skip


def _seq2seq() -> Inputs:
    return {"input_ids": torch.tensor(TOKENS), "decoder_input_ids": torch.tensor([[0, 5, 8]])}


def _speech() -> Inputs:
    sound = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(5)).double()
    return {"input_features": sound, "decoder_input_ids": torch.tensor([[1, 5, 8]])}


def _pairs() -> Inputs:
    texts = torch.tensor([[1, 5, 9, 2], [1, 17, 33, 2], [1, 21, 40, 2]])
    return {"input_ids": texts, "pixel_values": torch.cat([_pixels(), _pixels().flip(3)])}


_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_MOE = ("q_proj", "v_proj", "o_proj")
_BERT_TARGETS: dict[str, Any] = {
    "targets": ("query", "value", "dense"),
    "stacks": {"default": "bert.encoder.layer"},
}
_T5_STACKS = {"encoder": "encoder.block", "decoder": "decoder.block"}
_WHISPER_STACKS = {"encoder": "model.encoder.layers", "decoder": "model.decoder.layers"}
_CLIP_STACKS = {"encoder": "text_model.encoder.layers"}
_CLIP_PARTS = {name: f"{name}." for name in ("text_projection", "visual_projection")}
_CLIP_STACKS |= {"vision_tower": "vision_model.encoder.layers"}
_QWEN2_VL_STACKS = {"text_decoder": "model.layers", "vision_tower": "visual.blocks"}
_VISION = {"vision_tower": "vision_config.num_hidden_layers"}
_TOWERS = {"text_decoder": "text_config.num_hidden_layers"}
_GEMMA3_STACKS = {"text_decoder": "language_model.model.layers"}
_GEMMA3_STACKS |= {"vision_tower": "vision_tower.encoder.layers"}

_ALL = (
    _decoder("llama", hf.LlamaForCausalLM, lambda: hf.LlamaConfig(**TEXT), saved=("lm_head",)),
    _decoder("mistral", hf.MistralForCausalLM,
             lambda: hf.MistralConfig(**TEXT, sliding_window=4)),
    _decoder("qwen2", hf.Qwen2ForCausalLM,
             lambda: hf.Qwen2Config(**TEXT, use_sliding_window=True, sliding_window=4,
                                    max_window_layers=1)),
    _decoder("qwen3", hf.Qwen3ForCausalLM,
             lambda: hf.Qwen3Config(**TEXT, head_dim=8, use_sliding_window=True, sliding_window=4,
                                    max_window_layers=1, tie_word_embeddings=True), tied=True,
             saved=("lm_head",)),
    _decoder("qwen3_moe", hf.Qwen3MoeForCausalLM, _qwen3_moe, targets=_MOE),
    _decoder("mixtral", hf.MixtralForCausalLM,
             lambda: hf.MixtralConfig(**TEXT, num_local_experts=4), targets=_MOE),
    _decoder("deepseek_v3", hf.DeepseekV3ForCausalLM, _deepseek,
             targets=("q_a_proj", "kv_b_proj", "o_proj")),
    _decoder("gemma2", hf.Gemma2ForCausalLM,
             lambda: hf.Gemma2Config(**TEXT, head_dim=8, sliding_window=4), tied=True),
    _decoder("gemma3_text", hf.Gemma3ForCausalLM,
             lambda: hf.Gemma3TextConfig(**TEXT, head_dim=8, sliding_window=4,
                                         layer_types=_ALTERNATING), tied=True, saved=("lm_head",)),
    _decoder("gpt2", hf.GPT2LMHeadModel,
             lambda: hf.GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=LAYERS, n_head=4,
                                   n_positions=16, bos_token_id=1, eos_token_id=2),
             stacks={"default": "transformer.h"}, after=("transformer.ln_f.", "lm_head."),
             tied=True, targets=("c_attn", "c_proj", "c_fc"), lora={"fan_in_fan_out": True},
             saved=("lm_head",), prefix="transformer."),
    _decoder("phi3", hf.Phi3ForCausalLM, lambda: hf.Phi3Config(**TEXT),
             targets=("qkv_proj", "down_proj", "o_proj")),
    Family("t5", hf.T5ForConditionalGeneration, _t5, _seq2seq, _T5_STACKS,
           counts={"encoder": "num_layers", "decoder": "num_decoder_layers"},
           after=("encoder.final_", "decoder.final_"), first="relative_attention_bias",
           homes={"shared": "decoder"}, targets=("q", "v", "wo")),
    Family("whisper", hf.WhisperForConditionalGeneration, _whisper, _speech, _WHISPER_STACKS,
           counts={"encoder": "encoder_layers", "decoder": "decoder_layers"},
           after=("model.encoder.layer_norm.", "model.decoder.layer_norm.", "proj_out."),
           homes={"proj_out": "decoder"}, tied=True, targets=("q_proj", "fc1")),
    Family("bert", hf.BertForMaskedLM, _bert, _tokens, tied=True, **_BERT_TARGETS),
    Family("bert_classifier", hf.BertForSequenceClassification, _bert, _tokens,
           saved=("classifier",), **_BERT_TARGETS),
    Family("clip", hf.CLIPModel, _clip, _pairs, _CLIP_STACKS,
           counts={"encoder": "text_config.num_hidden_layers", **_VISION}, parts=_CLIP_PARTS,
           after=("text_model.final_", "vision_model.post_", "logit_scale"),
           homes={"logit_scale": "encoder"}, targets=("q_proj", "fc1")),
    Family("vit", hf.ViTForImageClassification,
           lambda: hf.ViTConfig(**{**TOWER, "num_hidden_layers": 3}),
           lambda: {"pixel_values": _pixels()}, {"default": "vit.encoder.layer"},
           targets=("q_proj", "fc1"), saved=("classifier",)),
    Family("qwen2_vl", hf.Qwen2VLForConditionalGeneration, _qwen2_vl, _qwen2_vl_inputs,
           _QWEN2_VL_STACKS, counts={**_TOWERS, "vision_tower": "vision_config.depth"},
           after=("model.norm.", "lm_head.", "visual.merger."),
           homes={"lm_head": "text_decoder"}, tied=False),
    Family("gemma3", hf.Gemma3ForConditionalGeneration, _gemma3, _gemma3_inputs, _GEMMA3_STACKS,
           counts={**_TOWERS, **_VISION},
           after=("language_model.model.norm.", "language_model.lm_head.", "lm_head.",
                  "vision_tower.post_", "vision_tower.head."),
           parts={"multi_modal_projector": "multi_modal_projector."},
           homes={"lm_head": "text_decoder", "language_model.lm_head": "text_decoder"}, tied=True),
)  # fmt: skip
FAMILIES = {family.name: family for family in _ALL}


def make(family: Family, seed: int, *, untied: bool = False) -> Any:
    """A model with random weights, large enough that every one shows in the logits."""
    config = family.config()
    if untied:
        config.tie_word_embeddings = False
    torch.manual_seed(seed)
    model = family.model(config).eval()
    with torch.no_grad():
        for name, weight in _floats(model):
            size = weight.new_empty(weight.shape).normal_(0, 0.15)
            weight.copy_(1 + size if _is_norm(name, weight) else size)
    return model


def tune(model: Any, seed: int, size: float = 0.03) -> Any:
    """Changes every weight in place, as an optimiser does; shared ones once."""
    source = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for _, weight in _floats(model):
            weight += size * torch.randn(weight.shape, generator=source)
    return model


def _floats(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, one) for name, one in model.named_parameters() if one.is_floating_point()]


def _is_norm(name: str, weight: torch.Tensor) -> bool:
    return bool((weight == 1).all()) and weight.ndim == 1


def load(family: Family, directory: Path) -> tuple[Any, dict[str, Any]]:
    """A checkpoint as transformers loads it, in float64, and what it says of its keys."""
    loader: Any = family.model
    model, info = loader.from_pretrained(directory, output_loading_info=True, dtype=torch.float64)
    # The fused kernels of experts have no float64.
    model.set_experts_implementation("eager")
    return model, info


def outputs(family: Family, model: Any) -> torch.Tensor:
    """What a model in float64 makes of the fixed inputs."""
    with torch.no_grad():
        result = model.eval()(**family.inputs())
    name = "logits_per_image" if "logits_per_image" in result else "logits"
    found: torch.Tensor = result[name]
    return found
