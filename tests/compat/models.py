"""Tiny models for comparing with mergekit: small enough to merge in a second, real enough to load.

Float32 weights are drawn without ties, so that every order statistic is well defined. Fine-tunes
differ from the base everywhere, as those of an optimiser do.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 48, 4, 4, 2, 64
EXPERTS = ("math", "code", "chat")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Tensors = dict[str, torch.Tensor]


def write_models(directory: Path, dtype: str) -> dict[str, Path]:
    """`base` and its fine-tunes; a bigger vocabulary; one whose lm_head is tied; by name."""
    base = _base()
    found = {"base": write(directory / "base", base, dtype)}
    for seed, name in enumerate(EXPERTS, 1):
        found[name] = write(directory / name, tuned(base, seed), dtype)
    found["words"] = write(
        directory / "words",
        _with_rows(tuned(base, 9), 4),
        dtype,
        extra_tokens=("<tool>", "<user>", "zig", "zag"),
    )
    found["other_words"] = write(
        directory / "other_words",
        _with_rows(tuned(base, 10), 2),
        dtype,
        extra_tokens=("zag", "<pen>"),
    )
    tied = {name: value for name, value in base.items() if name != "lm_head.weight"}
    found["tied"] = write(directory / "tied", tied, dtype, tied=True)
    found["tied_math"] = write(directory / "tied_math", tuned(tied, 5), dtype, tied=True)
    return found


def tuned(base: Tensors, seed: int, size: float = 0.02) -> Tensors:
    """A fine-tune: normal changes of every weight."""
    source = np.random.default_rng(1000 + seed)
    return {
        name: value + torch.from_numpy(source.normal(0, size, value.shape).astype(np.float32))
        for name, value in base.items()
    }


def write(
    directory: Path,
    tensors: Tensors,
    dtype: str,
    *,
    extra_tokens: tuple[str, ...] = (),
    tied: bool = False,
    model_type: str = "llama",
    **config: object,
) -> Path:
    """A checkpoint directory as transformers writes it."""
    directory.mkdir(parents=True)
    stored = {name: value.to(DTYPES[dtype]).contiguous() for name, value in tensors.items()}
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if ".layers." in name)
    members = {
        "architectures": [f"{model_type.capitalize()}ForCausalLM"],
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": len(tensors["model.embed_tokens.weight"]),
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        **config,
    }
    (directory / "config.json").write_text(json.dumps(members, indent=2) + "\n")
    (directory / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}\n')
    write_tokenizer(directory, extra_tokens)
    return directory


def read(directory: Path) -> Tensors:
    """All tensors of a checkpoint, over all its shards."""
    found: Tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def vocabulary(directory: Path) -> dict[str, int]:
    """Token -> row of a checkpoint's tokenizer."""
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    added = {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    return {**tokenizer["model"]["vocab"], **added}


def in_order_of(tensors: Tensors, own: dict[str, int], wanted: dict[str, int]) -> Tensors:
    """A model with its token rows where another vocabulary of the same tokens has them."""
    assert own.keys() == wanted.keys()
    found = dict(tensors)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            found[name] = tensors[name].clone()
            for token, row in wanted.items():
                found[name][row] = tensors[name][own[token]]
    return found


def _base() -> Tensors:
    source = np.random.default_rng(7)

    def normal(*shape: int, around: float = 0.0) -> torch.Tensor:
        return torch.from_numpy((around + source.normal(0, 0.1, shape)).astype(np.float32))

    head = HIDDEN // HEADS
    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {
            at + "input_layernorm.weight": normal(HIDDEN, around=1),
            at + "self_attn.q_proj.weight": normal(HIDDEN, HIDDEN),
            at + "self_attn.k_proj.weight": normal(KV_HEADS * head, HIDDEN),
            at + "self_attn.v_proj.weight": normal(KV_HEADS * head, HIDDEN),
            at + "self_attn.o_proj.weight": normal(HIDDEN, HIDDEN),
            at + "post_attention_layernorm.weight": normal(HIDDEN, around=1),
            at + "mlp.gate_proj.weight": normal(INNER, HIDDEN),
            at + "mlp.up_proj.weight": normal(INNER, HIDDEN),
            at + "mlp.down_proj.weight": normal(HIDDEN, INNER),
        }
    tensors["model.norm.weight"] = normal(HIDDEN, around=1)
    tensors["lm_head.weight"] = normal(VOCABULARY, HIDDEN)
    return tensors


def _with_rows(tensors: Tensors, rows: int) -> Tensors:
    """The same with more rows in what has one per token."""
    source = np.random.default_rng(rows)
    found = dict(tensors)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = source.normal(0, 0.1, (rows, HIDDEN)).astype(np.float32)
        found[name] = torch.cat([tensors[name], torch.from_numpy(more)])
    return found


def write_tokenizer(directory: Path, extra: tuple[str, ...]) -> None:
    """A word-level tokenizer of VOCABULARY words, and some of the model's own."""
    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(VOCABULARY - 3))]
    special = [
        {
            "id": place,
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": word.startswith("<"),
        }
        for place, word in [*enumerate(words[:3]), *enumerate(extra, VOCABULARY)]
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: place for place, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, indent=2))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 128,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
