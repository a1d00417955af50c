"""Real models on disk, merges of them in float32, and how close a model comes to a reference.

Two judges, both on held-out tokens: the *gain* (how much of the exact model's improvement in loss
over the base is kept) and the *fidelity*, 1 - KL(exact || estimate) / KL(exact || base) of the
next-token distributions. Gain can exceed 1 by overshooting; fidelity cannot, so it decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = dict[str, npt.NDArray[np.float32]]
Classes = dict[str, npt.NDArray[np.bool_]]

WINDOW_TOKENS = 128
KL_WINDOWS = 12  # per domain; their log-probabilities are held in memory (25 MB a domain)
BATCH = 13


def read_weights(directory: Path) -> Weights:
    """All tensors of `directory/model.safetensors`, widened to float32."""
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).float().numpy() for name in sorted(file.keys())}


@dataclass(frozen=True, slots=True)
class Family:
    """A base and the changes its fine-tunes make to it."""

    base: Weights
    deltas: dict[str, Weights]

    @classmethod
    def read(cls, data: Path) -> Family:
        base = read_weights(data / "base")
        deltas: dict[str, Weights] = {}
        for directory in sorted(data.iterdir()):
            if directory.name != "base" and (directory / "model.safetensors").exists():
                tuned = read_weights(directory)
                deltas[directory.name] = {name: tuned[name] - base[name] for name in base}
        return cls(base, deltas)

    @property
    def experts(self) -> list[str]:
        """The strongly tuned models: those that merges are made of."""
        return [name for name in self.deltas if name.startswith("expert-")]

    def domain(self, model: str) -> str:
        """The held-out domain a model is tuned for."""
        return model.rsplit("-", 1)[-1]

    def single(self, delta: Weights) -> Weights:
        return {name: self.base[name] + delta[name] for name in self.base}

    def task_arithmetic(self, deltas: Mapping[str, Weights], weight: float = 0.25) -> Weights:
        return {
            name: base + weight * sum(deltas[e][name] for e in self.experts)
            for name, base in self.base.items()
        }

    def ties(
        self, deltas: Mapping[str, Weights], density: float, kept: Mapping[str, Classes] | None
    ) -> Weights:
        """Trim, elect, disjoint mean (weight 1). With `kept`, the deltas are coarse estimates.

        A coarse estimate cannot be trimmed weight by weight: its magnitude is scaled by the share
        of the kept L1 norm that lies above the threshold (merge-semantics, Depth).
        """
        merged: Weights = {}
        for name, base in self.base.items():
            terms = []
            for expert in self.experts:
                size = np.abs(self.deltas[expert][name])
                k = max(1, int(density * size.size))
                threshold = np.partition(size.ravel(), size.size - k)[size.size - k]
                term = deltas[expert][name]
                if kept is None or name not in kept[expert]:
                    term = np.where(size >= threshold, term, np.float32(0))
                else:
                    inside = size[kept[expert][name]]
                    total = float(inside.sum())
                    above = float(inside[inside >= threshold].sum())
                    term = term * np.float32(above / total if total else 0.0)
                terms.append(term)
            elected = np.where(sum(terms) >= 0, 1, -1)
            agree = [np.sign(term) == elected for term in terms]
            count = np.maximum(sum(a.astype(np.float32) for a in agree), 1)
            merged[name] = (
                base
                + sum(np.where(a, t, np.float32(0)) for a, t in zip(agree, terms, strict=True))
                / count
            )
        return merged


class Judge:
    """Runs a Llama with given weights over the held-out windows."""

    def __init__(self, data: Path, windows: int) -> None:
        import torch
        from safetensors.numpy import load_file
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(1)
        net: Any = LlamaForCausalLM
        self._net = net(LlamaConfig.from_pretrained(data / "base")).float().eval()
        self._state = self._net.state_dict()
        self.tokens: dict[str, Any] = {}
        for domain, tokens in sorted(load_file(data / "val_tokens.safetensors").items()):
            rows = tokens[: tokens.size // WINDOW_TOKENS * WINDOW_TOKENS].reshape(-1, WINDOW_TOKENS)
            step = max(1, len(rows) // windows) if windows else 1
            rows = rows[::step][: windows or None]
            # the windows whose distributions are compared come first, spread over the text
            order = np.arange(len(rows))
            first = order[:: max(1, len(rows) // KL_WINDOWS)][:KL_WINDOWS]
            order = np.concatenate([first, np.setdiff1d(order, first)])
            self.tokens[domain] = torch.from_numpy(rows[order].astype(np.int64))

    def run(
        self, weights: Weights, domains: list[str], reference: list[Any] | None = None
    ) -> tuple[float, float, list[Any]]:
        """Summed mean loss (nats) of the domains, mean KL to `reference`, own log-probabilities."""
        import torch
        from torch.nn.functional import log_softmax

        for name, value in weights.items():
            self._state[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
        total, divergences, own = 0.0, [], []
        with torch.inference_mode():
            for index, domain in enumerate(domains):
                rows = self.tokens[domain]
                nll, heads = 0.0, []
                for start in range(0, len(rows), BATCH):
                    batch = rows[start : start + BATCH]
                    logp = log_softmax(self._net(batch, use_cache=False).logits[:, :-1], -1)
                    nll -= float(logp.gather(-1, batch[:, 1:, None]).sum())
                    heads.append(logp[: max(0, KL_WINDOWS - start)].clone())
                total += nll / (len(rows) * (WINDOW_TOKENS - 1))
                own.append(torch.cat(heads))
                if reference is not None:
                    exact = reference[index]
                    divergences.append(float((exact.exp() * (exact - own[-1])).sum(-1).mean()))
        return total, float(np.mean(divergences)) if divergences else 0.0, own


@dataclass(frozen=True, slots=True)
class Score:
    """What an estimate keeps of one exact model."""

    gain: float
    fidelity: float


class Yardstick:
    """One exact model (an expert or a merge) as the measure of its estimates."""

    def __init__(self, judge: Judge, exact: Weights, base: Weights, domains: list[str]) -> None:
        self._judge, self._domains = judge, domains
        self.loss, _, self._reference = judge.run(exact, domains)
        self.base_loss, self._base_kl, _ = judge.run(base, domains, self._reference)

    def score(self, estimate: Weights) -> Score:
        loss, kl, _ = self._judge.run(estimate, self._domains, self._reference)
        return Score((self.base_loss - loss) / (self.base_loss - self.loss), 1 - kl / self._base_kl)
