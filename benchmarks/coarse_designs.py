"""Coarse layers of a fine-tune's change: what each design keeps, and the bytes it takes.

A design keeps, in every group of weights, the share `q` of the largest changes as trits (0, -, +)
and gives them one magnitude. Groups are rows, runs of weights, or whole tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from tiny_models import Classes, Family, Weights

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Values = TypeVar("Values", np.float32, np.uint8)
Scope = Literal["tensor", "row"] | int  # an int: that many consecutive weights
Scale = Literal["mean", "norm", "unbiased"]

SMALLEST_TENSOR = 4096  # weights; smaller ones are read exactly
BLOCK_WEIGHTS = 1 << 15  # 64 KiB of bf16: a small model's stand-in for blocks of 1 MiB
TABLE_BYTES = 12  # six counts of 16 bits describe the table of 243 trit bytes
BLOCK_HEADER_BYTES = 24  # rANS states and lengths
POWERS_OF_3 = (3 ** np.arange(5)).astype(np.uint8)
NONZERO = np.array([sum(byte // 3**i % 3 > 0 for i in range(5)) for byte in range(243)])
# bytes with the same number of nonzero trits are equally likely: places and signs are exchangeable
ALIKE = np.array([comb(5, k) * 2**k for k in range(6)])
SCALE_POWER: dict[Scale, float] = {"mean": 0.0, "norm": 0.5, "unbiased": 1.0}


@dataclass(frozen=True, slots=True)
class Design:
    """q: share kept; classes: inner shares with a magnitude of their own (five levels: one)."""

    label: str
    q: float = 0.35
    scope: Scope = "row"
    magnitude_scope: Scope | None = None  # None: the same as `scope`
    scale: Scale = "unbiased"
    classes: tuple[float, ...] = ()
    threshold_of_mean: float = 0.0  # instead of q: a multiple of the group's mean change
    magnitude_bytes: float = 1.0
    rounded: bool = True  # magnitudes rounded to 1/8 octave, as one byte holds them
    one_threshold: bool = False  # one for the whole model
    by_exponent: bool = False  # a magnitude for each exponent of the base weight


@dataclass(slots=True)
class Layer:
    """The coarse layer of one model. Bytes and energies are per block of `BLOCK_WEIGHTS`."""

    estimate: Weights = field(default_factory=dict)
    mean: Weights = field(default_factory=dict)  # the same with the mean magnitude
    kept: Classes = field(default_factory=dict)
    coarse_bytes: dict[str, F64] = field(default_factory=dict)
    captured: dict[str, F64] = field(default_factory=dict)  # energy, with the mean magnitude
    raw_bytes: int = 0

    @property
    def share(self) -> float:
        return float(sum(b.sum() for b in self.coarse_bytes.values())) / self.raw_bytes


def grouped(values: npt.NDArray[Values], scope: Scope) -> Iterator[npt.NDArray[Values]]:
    """Views of a matrix as (groups, weights of a group)."""
    flat = values.reshape(-1)
    if scope == "tensor":
        yield flat[None]
    elif scope == "row":
        yield values.reshape(-1, values.shape[-1])
    else:
        whole = flat.size // scope * scope
        yield flat[:whole].reshape(-1, scope)
        if whole < flat.size:
            yield flat[None, whole:]


def thresholds(size: F32, share: float) -> F32:
    """The k-th largest of every row of `size` (groups, weights), ties included; never 0."""
    k = max(1, int(share * size.shape[1]))
    column = size.shape[1] - k
    return np.maximum(np.partition(size, column, axis=1)[:, column, None], np.float32(1e-30))


def level_of(delta: F32, design: Design, model_threshold: float) -> npt.NDArray[np.uint8]:
    """0 where dropped, else 1 + the number of inner thresholds reached."""
    level = np.zeros(delta.shape, np.uint8)
    for part, out in zip(
        grouped(np.abs(delta), design.scope), grouped(level, design.scope), strict=True
    ):
        if design.one_threshold:
            out += part >= model_threshold
        elif design.threshold_of_mean:
            limit = np.maximum(design.threshold_of_mean * part.mean(1, keepdims=True), 1e-30)
            out += part >= limit
        else:
            for share in (design.q, *design.classes):
                out += part >= thresholds(part, share)
    return level


def magnitudes(delta: F32, level: npt.NDArray[np.uint8], design: Design, power: float) -> F32:
    """|estimate|: mean |d| of the kept of each group and class, over its energy share ** power."""
    out = np.zeros_like(delta)
    scope = design.magnitude_scope or design.scope
    for size, lev, target in zip(
        grouped(np.abs(delta), scope), grouped(level, scope), grouped(out, scope), strict=True
    ):
        energy = (size.astype(np.float64) ** 2).sum(1)
        means, explained = [], np.zeros(len(size))
        for j in range(1, int(level.max()) + 1):
            count = (lev == j).sum(1)
            l1 = np.where(lev == j, size, 0).sum(1, dtype=np.float64)
            means.append(l1 / np.maximum(count, 1))
            explained += l1 * means[-1]
        share = np.where(explained > 0, explained / np.maximum(energy, 1e-60), 1.0)
        for j, mean in enumerate(means, 1):
            value = mean * share**-power
            if design.rounded:
                value = np.exp2(np.round(np.log2(np.maximum(value, 1e-30)) * 8) / 8)
            target += np.where(lev == j, value[:, None], 0).astype(np.float32)
    return out


def by_exponent(delta: F32, base: F32, level: npt.NDArray[np.uint8]) -> F32:
    """|estimate| as the mean of the kept that share the base weight's exponent."""
    exponent = (base.view(np.uint32) >> 23 & 255).astype(np.int64).ravel()
    kept = level.ravel() > 0
    l1 = np.bincount(exponent, np.abs(delta).ravel() * kept, 256)
    count = np.maximum(np.bincount(exponent, kept, 256), 1)
    return ((l1 / count)[exponent] * kept).reshape(delta.shape).astype(np.float32)


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    seen = counts[counts > 0].astype(np.float64)
    return float(-(seen * np.log2(seen / seen.sum())).sum())


def trit_bits(trits: npt.NDArray[np.uint8]) -> F64:
    """Bits of each byte of five trits under a 12-bit table described by six counts."""
    padded = np.concatenate([trits, np.zeros(-trits.size % 5, np.uint8)]).reshape(-1, 5)
    nonzero = NONZERO[(padded * POWERS_OF_3).sum(1)]
    counts = np.bincount(nonzero, minlength=6)
    frequency = np.maximum(1, np.round(counts / counts.sum() / ALIKE * 4096))
    price = -np.log2(frequency / (frequency * ALIKE).sum())
    return np.asarray(price[nonzero], np.float64)


def by_block(values: F64, weights: int) -> F64:
    """Sums over blocks of `BLOCK_WEIGHTS`; a value stands for one weight or for several."""
    each = -(-weights // values.size)
    starts = np.arange(0, weights, BLOCK_WEIGHTS) // each
    return np.asarray(np.add.reduceat(values, starts), np.float64)


def build(family: Family, model: str, design: Design) -> Layer:
    """The coarse layer of one model under a design; small tensors stay exact."""
    layer = Layer()
    deltas = family.deltas[model]
    model_threshold = 0.0
    if design.one_threshold:
        every = np.concatenate([np.abs(d).ravel() for d in deltas.values()])
        place = int(every.size * (1 - design.q))
        model_threshold = float(np.partition(every, place)[place])
    for name, delta in deltas.items():
        layer.raw_bytes += 2 * delta.size
        energy = (delta.astype(np.float64) ** 2).ravel()
        if delta.size < SMALLEST_TENSOR:
            layer.estimate[name] = layer.mean[name] = delta
            layer.coarse_bytes[name] = np.array([2.0 * delta.size])
            layer.captured[name] = energy.sum(keepdims=True)
            continue
        level = level_of(delta, design, model_threshold)
        if design.by_exponent:
            mean = size = by_exponent(delta, family.base[name], level)
        else:
            mean = magnitudes(delta, level, design, 0.0)
            size = magnitudes(delta, level, design, SCALE_POWER[design.scale])
        layer.mean[name], layer.estimate[name] = np.copysign(mean, delta), np.copysign(size, delta)
        layer.kept[name] = level > 0
        layer.captured[name] = by_block(
            energy - (delta - layer.mean[name]).astype(np.float64).ravel() ** 2, delta.size
        )
        trits = np.where(level.ravel() > 0, np.where(delta.ravel() > 0, 2, 1), 0).astype(np.uint8)
        used = by_block(trit_bits(trits) / 8, delta.size)
        scope = design.magnitude_scope or design.scope
        groups = sum(len(part) for part in grouped(delta, scope))
        side = groups * design.magnitude_bytes * (1 + len(design.classes))
        inner = sum(
            entropy_bits(np.array([(level == j).sum(), (level > j).sum()])) / 8
            for j in range(1, 1 + len(design.classes))
        )
        fixed = (TABLE_BYTES + BLOCK_HEADER_BYTES) * max(1, delta.size >> 19)  # blocks of 1 MiB
        layer.coarse_bytes[name] = used + (side + inner + fixed) / used.size
    return layer
