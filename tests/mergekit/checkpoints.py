"""Tiny Llamas on disk, with weights, tokenizers and generation configs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tests.mergekit.toys import llama, llama_config

Weights = Mapping[str, npt.NDArray[np.float32]]


def weights(
    seed: int, layers: int = 4, vocabulary: int = 32, hidden: int = 8, *, head: bool = True
) -> dict[str, npt.NDArray[np.float32]]:
    source = np.random.default_rng(seed)
    return {
        name: source.standard_normal(shape).astype(np.float32)
        for name, shape in llama(layers, vocabulary, hidden, head=head).items()
    }


def write_checkpoint(
    directory: Path, content: Weights, config: Mapping[str, Any], words: int | None = None
) -> Path:
    """A checkpoint as transformers saves it; `words`: with a tokenizer that knows so many."""
    directory.mkdir(parents=True)
    save_file(dict(content), directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": 1, "eos_token_id": [2]}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    (directory / "README.md").write_text("# not the result's\n")
    (directory / "pytorch_model.bin").write_bytes(b"not the result's")
    (directory / "LICENSE").write_text("as it is\n")
    if words is not None:
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer(words)))
        (directory / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return directory


def tokenizer(words: int) -> dict[str, Any]:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, words)}}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": n, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for n, token in enumerate(("<unk>", "<s>", "</s>"))
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }  # fmt: skip


def write_family(directory: Path, layers: int = 4) -> dict[str, Path]:
    """base, math and code of one size; `more` knows 40 tokens, `wide` is wider, `tall` taller."""
    config = llama_config(layers, vocab_size=32, eos_token_id=2)
    base = weights(1, layers)
    found = {"base": write_checkpoint(directory / "base", base, config, 32)}
    for seed, name in enumerate(("math", "code"), 2):
        change = weights(seed, layers)
        tuned = {key: value + np.float32(0.05) * change[key] for key, value in base.items()}
        found[name] = write_checkpoint(directory / name, tuned, config, 32)
    sizes: dict[str, dict[str, int]] = {
        "more": {"vocabulary": 40}, "wide": {"hidden": 16}, "tall": {"layers": layers + 2},
    }  # fmt: skip
    for name, size in sizes.items():
        made: dict[str, Any] = {"layers": layers, **size}
        found[name] = write_checkpoint(
            directory / name,
            weights(9, **made),
            llama_config(made["layers"], vocab_size=size.get("vocabulary", 32)),
            size.get("vocabulary", 32),
        )
    return found
