"""A small real Llama: made, trained, fine-tuned, measured and saved as Hugging Face directories."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW = 128
BATCH = 8
_VOCABULARY = 1024
_TEXT_CHARACTERS = 400_000  # of each domain, for the tokenizer: more does not change it much


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens to train on, and the share of windows to draw from them."""

    tokens: torch.Tensor
    share: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train. A machine too slow for `steps` stops after `most_s`."""

    steps: int
    most_s: float
    rate: float
    seed: int


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 1,024 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text[:_TEXT_CHARACTERS] for text in texts], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    """The tokens of a long text, one dimension."""
    pieces = [text[start : start + 20_000] for start in range(0, len(text), 20_000)]
    encoded = tokenizer(pieces)["input_ids"]
    return torch.tensor([token for piece in encoded for token in piece])


def new_model(seed: int) -> LlamaForCausalLM:
    """An untrained Llama of 1.9 million weights, float32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2 * WINDOW,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def train(model: LlamaForCausalLM, parts: Sequence[Part], schedule: Schedule) -> int:
    """Train on windows drawn from the parts; returns the steps made."""
    generator = torch.Generator().manual_seed(schedule.seed)
    shares = torch.tensor([part.share for part in parts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, weight_decay=0.01)
    model.train()
    start = time.monotonic()
    for step in range(schedule.steps):
        passed = max(step / schedule.steps, (time.monotonic() - start) / schedule.most_s)
        if passed >= 1:
            return step
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - passed)
        rows = []
        for part in torch.multinomial(shares, BATCH, replacement=True, generator=generator):
            tokens = parts[int(part)].tokens
            at = int(torch.randint(len(tokens) - WINDOW, (1,), generator=generator))
            rows.append(tokens[at : at + WINDOW])
        batch = torch.stack(rows)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return schedule.steps


def tuned(
    base: LlamaForCausalLM, parts: Sequence[Part], schedule: Schedule
) -> tuple[LlamaForCausalLM, int]:
    """A fine-tuned copy of a model, and the steps made."""
    model = copy.deepcopy(base)
    return model, train(model, parts, schedule)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokens: torch.Tensor, windows: int = 64) -> float:
    """Mean cross-entropy of the next token, in nats, over evenly spread windows."""
    model.eval()
    count = min(windows, len(tokens) // WINDOW)
    starts = [int(k * (len(tokens) - WINDOW) / max(1, count - 1)) for k in range(count)]
    batch = torch.stack([tokens[start : start + WINDOW] for start in starts])
    losses = [
        model(input_ids=part, labels=part).loss.item() * len(part) for part in batch.split(BATCH)
    ]
    return sum(losses) / count


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a Hugging Face directory in bfloat16."""
    stored = copy.deepcopy(model).to(torch.bfloat16)
    stored.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def load(directory: Path) -> LlamaForCausalLM:
    """Load a directory as any user would, for measuring in float32."""
    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
