"""Checkpoints of the zoo on disk: bases, fine-tunes and adapters, made when a config asks for one.

`Zoo.directory` is what programs are given; `Zoo.model` the same in float64, as transformers and
peft understand it, which is what the oracle merges.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file

from tests.compat.models import write_tokenizer
from tests.compat.zoo import FAMILIES, VOCABULARY, Family, load, make, tune

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SEEDS = {
    "base": 0,
    "math": 1,
    "code": 2,
    "chat": 3,
    "own_head": 4,
    "words": 5,
    "other_words": 6,
    "bare": 7,
}
WORDS = {"words": ("<tool>", "<user>", "zig", "zag"), "other_words": ("zag", "<pen>")}
# What float32 sums of an adapter's products may be off by, of the weight.
SUMMED = 16 * 2.0**-24


@dataclass(frozen=True)
class Kind:
    """Models that belong together: of one family, stored alike.

    untied  with a head of their own where the family shares it by default
    layout  `one` file, `shards`, or a `pickle`
    """

    family: str
    dtype: str
    untied: bool = False
    layout: str = "one"


@dataclass(frozen=True)
class Model:
    """A model in float64.

    tensors  by their names on disk
    config   transformers' config of it
    tokens   token -> row, where it has a tokenizer
    loose    by how much a tensor may be another one: that of a stage, or of an adapter's product
    """

    tensors: Mapping[str, np.ndarray]
    config: Any
    tokens: Mapping[str, int] = field(default_factory=dict)
    loose: Mapping[str, np.ndarray] = field(default_factory=dict)


class NotMerged(Exception):
    """An adapter that peft does not merge either."""


class Zoo:
    """The models of a run, in a directory of their own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._models: dict[tuple[Kind, str], Model] = {}

    def directory(self, kind: Kind, name: str) -> Path:
        """A checkpoint, made if it is not there yet."""
        untied = "untied" if kind.untied else "tied"
        place = self._root / f"{kind.family}-{kind.dtype}-{untied}-{kind.layout}" / name
        if not place.exists():
            self._write(kind, name, place)
        return place

    def adapter(self, kind: Kind, name: str, settings: Mapping[str, Any], seed: int) -> Path:
        """A LoRA adapter of a model, as peft writes it."""
        place = self.directory(kind, name).parent / f"lora-{seed}-{name}"
        if not place.exists():
            family = FAMILIES[kind.family]
            torch.manual_seed(seed)
            loader: Any = family.model
            model = loader.from_pretrained(self.directory(kind, name))
            tuned: Any = peft.get_peft_model(model, peft.LoraConfig(**settings))
            source = torch.Generator().manual_seed(seed)
            for weight in tuned.parameters():
                if weight.requires_grad:
                    weight.data += 0.15 * torch.randn(weight.shape, generator=source)
            tuned.save_pretrained(str(place))
        return place

    def model(self, kind: Kind, name: str) -> Model:
        """What is in the checkpoint of that name."""
        if (kind, name) not in self._models:
            family = FAMILIES[kind.family]
            found = read_model(family, self.directory(kind, name))
            if name == "bare":
                spelled = {f"{family.prefix}{key}": value for key, value in found.tensors.items()}
                found = replace(found, tensors=spelled)
            self._models[kind, name] = found
        return self._models[kind, name]

    def with_adapter(self, kind: Kind, name: str, adapter: Path) -> Model:
        """A model and an adapter as peft merges the two."""
        family = FAMILIES[kind.family]
        model, _ = load(family, self.directory(kind, name))
        try:
            merged = peft.PeftModel.from_pretrained(model, str(adapter)).double().merge_and_unload()
        except RuntimeError as error:  # a lora_bias where there is no bias
            raise NotMerged(f"peft: {error}") from error
        if family.tied is not None and not _shares_embeddings(merged):
            untie(merged)
        place = adapter.with_name(f"{adapter.name}-merged-{name}")
        merged.save_pretrained(place)
        found = read_model(family, place)
        before = self.model(kind, name)
        loose = {}
        for key, value in found.tensors.items():
            old = before.tensors.get(key, np.zeros_like(value))
            change = np.abs(value - old).max(initial=0.0)
            if change:  # products may be as large as the largest change, and cancel out
                loose[key] = SUMMED * (np.abs(value) + np.abs(old) + change)
        return Model(found.tensors, found.config, before.tokens, loose)

    def _write(self, kind: Kind, name: str, place: Path) -> None:
        family = FAMILIES[kind.family]
        untied = kind.untied or (name == "own_head" and bool(family.tied))
        model = make(family, 0, untied=untied)
        if SEEDS[name]:
            tune(model, SEEDS[name])
        if name in WORDS:
            model.resize_token_embeddings(VOCABULARY + len(WORDS[name]), mean_resizing=False)
        model = model.to(DTYPES[kind.dtype])
        if name == "bare":
            model = model.base_model
        size = "24KB" if kind.layout == "shards" else "1GB"
        model.save_pretrained(place, max_shard_size=size)
        if kind.layout == "pickle":
            file = place / "model.safetensors"
            torch.save(load_file(file), place / "pytorch_model.bin")
            file.unlink()
        if family.words:
            write_tokenizer(place, WORDS.get(name, ()))


def _shares_embeddings(model: Any) -> bool:
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return head.weight is embeddings.weight


def untie(model: Any) -> None:
    """Says in a model's config that its head is its own."""
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def read_model(family: Family, directory: Path) -> Model:
    """A checkpoint's tensors and config, and its vocabulary."""
    tensors = {name: value.double().numpy() for name, value in stored(directory).items()}
    config = type(family.config()).from_pretrained(directory)
    tokens: dict[str, int] = {}
    file = directory / "tokenizer.json"
    if file.exists():
        tokenizer = json.loads(file.read_text())
        tokens = dict(tokenizer["model"]["vocab"])
        tokens |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return Model(tensors, config, tokens)


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint as they are stored, over all its files."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    for file in sorted(directory.glob("pytorch_model*.bin")):
        found |= torch.load(file, weights_only=True)
    return found


def write_model(directory: Path, model: Model) -> Path:
    """A model of the oracle as a checkpoint in float64."""
    directory.mkdir(parents=True)
    model.config.save_pretrained(directory)
    tensors = {name: torch.from_numpy(value).contiguous() for name, value in model.tensors.items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory
