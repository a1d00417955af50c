"""A small real Llama: made, trained, fine-tuned, measured and saved as Hugging Face directories."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW = 128
BATCH = 8
_VOCABULARY = 1024
_MEASURED_EVERY = 40  # steps
_QUICK_WINDOWS = 24
_TEXT_CHARACTERS = 400_000  # of each domain, for the tokenizer: more does not change it much


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens to train on, and the share of windows to draw from them."""

    tokens: torch.Tensor
    share: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How fast to train, and for how many steps at most.

    A measured goal ends it, never a clock: every machine makes the same steps.
    """

    most_steps: int
    rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class Goal:
    """Train until the mean held-out loss of these texts is at most `loss`, in nats a token."""

    texts: Sequence[torch.Tensor]
    loss: float


Told = Callable[[int, float], None]
"""Called with the steps made and the loss measured, now and then."""


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


def train(
    model: LlamaForCausalLM, parts: Sequence[Part], schedule: Schedule, goal: Goal, told: Told
) -> int:
    """Train on windows drawn from the parts until the goal is met; returns the steps made."""
    generator = torch.Generator().manual_seed(schedule.seed)
    shares = torch.tensor([part.share for part in parts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, weight_decay=0.01)
    for step in range(schedule.most_steps):
        if step % _MEASURED_EVERY == 0:
            loss = mean_loss(model, goal.texts)
            told(step, loss)
            if loss <= goal.loss:
                return step
            model.train()
        passed = step / schedule.most_steps
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
    return schedule.most_steps


def mean_loss(model: LlamaForCausalLM, texts: Sequence[torch.Tensor]) -> float:
    """The mean of the held-out losses of some texts, quickly: over fewer windows."""
    return sum(held_out_loss(model, text, _QUICK_WINDOWS) for text in texts) / len(texts)


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
