"""Which blocks to read how deep under a byte budget, and what that keeps of a merge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from coarse_designs import BLOCK_WEIGHTS, F64, SMALLEST_TENSOR, Layer, by_block
from tiny_models import Family, Weights

Policy = Literal["random", "energy", "norm", "even"]
# a block's gain is the share of its energy that a depth captures, times its energy to this power
# and its weights to the rest: by energy, by its root, or every weight alike
ENERGY_POWER: dict[Policy, float] = {"random": 0.0, "energy": 1.0, "norm": 0.5, "even": 0.0}
ESCAPE = 255
CONTEXTS = 24  # exponents of the base with a table of their own; the rest share one


def monotone(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """bf16 values (held in float32) as integers in the order of the reals."""
    bits = (values.view(np.uint32) >> 16).astype(np.int64)
    return np.where(bits & 0x8000, -(bits & 0x7FFF), bits & 0x7FFF)


def exact_bytes(
    base: npt.NDArray[np.float32],
    delta: npt.NDArray[np.float32],
    kept: npt.NDArray[np.bool_] | None,
) -> F64:
    """Bytes per block of what the coarse layer leaves (all of it where `kept` is None).

    Zigzag distance in units in the last place, a table for each base exponent, one more set of
    tables where the coarse layer gave the sign; entropy of the tensor's counts.
    """
    base, delta = base.ravel(), delta.ravel()
    distance = monotone(base + delta) - monotone(base)
    zigzag = (np.abs(distance) << 1) - (distance < 0)
    exponent = (base.view(np.uint32) >> 23 & 255).astype(np.int64)
    common = np.argsort(-np.bincount(exponent, minlength=256))[:CONTEXTS]
    context = np.full(256, CONTEXTS)
    context[common] = np.arange(CONTEXTS)
    row = context[exponent]
    if kept is not None:
        row = np.where(kept.ravel(), row + CONTEXTS + 1, row)
        zigzag = np.where(kept.ravel(), np.abs(distance), zigzag)
    symbol = np.minimum(zigzag, ESCAPE)
    counts = np.bincount(row * 256 + symbol, minlength=256 * 2 * (CONTEXTS + 1)).reshape(-1, 256)
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    price = -np.log2(np.maximum(counts, 1) / total)
    bits = price[row, symbol] + 16.0 * (symbol == ESCAPE)
    return by_block(bits / 8, delta.size)


@dataclass(frozen=True, slots=True)
class Step:
    """Reading one block of one model one layer deeper."""

    model: str
    tensor: str
    block: int
    depth: int  # 1 .. number of layers; the last is exact
    cost: float
    energy: float
    block_energy: float
    weights: int

    def slope(self, policy: Policy) -> float:
        """Gain per byte."""
        power = ENERGY_POWER[policy]
        scale: float = (self.weights / max(self.block_energy, 1e-30)) ** (1 - power)
        return self.energy * scale / max(self.cost, 1e-9)


def hull(costs: list[float], energies: list[float]) -> list[tuple[int, float, float]]:
    """(depth, extra bytes, extra energy) along the lower convex hull from (0, 0)."""
    out: list[tuple[int, float, float]] = []
    at, cost, energy = 0, 0.0, 0.0
    while at < len(costs):
        slopes = [
            (energies[d] - energy) / max(costs[d] - cost, 1e-9) for d in range(at, len(costs))
        ]
        best = at + int(np.argmax(slopes))
        out.append((best + 1, costs[best] - cost, energies[best] - energy))
        at, cost, energy = best + 1, costs[best], energies[best]
    return out


def steps(family: Family, layers: dict[str, list[Layer]]) -> Iterator[Step]:
    """Every useful step. `layers[model]`: nested coarse layers, the coarsest first; may be empty.

    The bytes of a later layer include those before it. Nested layers cost what their symbols do:
    the second is charged its own bytes less those that the first already told.
    """
    for model, coarse in layers.items():
        for name, delta in family.deltas[model].items():
            if delta.size < SMALLEST_TENSOR:
                continue  # charged to every plan alike, and read exactly
            energy = by_block((delta.astype(np.float64) ** 2).ravel(), delta.size)
            kept = coarse[-1].kept[name] if coarse else None
            last = exact_bytes(family.base[name], delta, kept)
            below = [layer.coarse_bytes[name] for layer in coarse]
            if len(coarse) == 2:
                below[1] = below[0] + refinement(delta, coarse[0], coarse[1], name)
            depths = [*below, (below[-1] if below else 0) + last]
            energies = [*(layer.captured[name] for layer in coarse), energy]
            for block in range(energy.size):
                for depth, cost, more in hull(
                    [float(c[block]) for c in depths], [float(e[block]) for e in energies]
                ):
                    size = min(BLOCK_WEIGHTS, delta.size - block * BLOCK_WEIGHTS)
                    whole = float(energy[block])
                    yield Step(model, name, block, depth, cost, more, whole, size)


def refinement(delta: npt.NDArray[np.float32], first: Layer, second: Layer, name: str) -> F64:
    """Bytes per block of the second trit layer where the first has said nothing."""
    open_ = ~first.kept[name].ravel()
    band = second.kept[name].ravel() & open_
    share = band.sum() / max(1, open_.sum())
    bits = np.where(band, 1 - np.log2(share), np.where(open_, -np.log2(1 - share), 0.0))
    return by_block(bits / 8, delta.size)


def plan(every: list[Step], budget_bytes: float, policy: Policy) -> dict[tuple[str, str, int], int]:
    """Depth of each block: steps by gain per byte, or layer by layer at random, while they fit."""
    if policy == "random":
        chance = np.random.default_rng(0).random(len(every))
        order = np.lexsort((chance, np.array([step.depth for step in every]))).tolist()
    else:
        order = np.argsort([-s.slope(policy) for s in every], kind="stable").tolist()
    depths: dict[tuple[str, str, int], int] = {}
    blocked: set[tuple[str, str, int]] = set()
    left = budget_bytes
    for i in order:
        step = every[i]
        key = (step.model, step.tensor, step.block)
        if key in blocked:
            continue
        if step.cost > left:
            blocked.add(key)
            continue
        left -= step.cost
        depths[key] = step.depth
    return depths


def planned(
    family: Family, layers: dict[str, list[Layer]], depths: dict[tuple[str, str, int], int]
) -> dict[str, Weights]:
    """What each model's change looks like when its blocks are read to these depths."""
    out: dict[str, Weights] = {}
    for model, coarse in layers.items():
        out[model] = {}
        for name, delta in family.deltas[model].items():
            if delta.size < SMALLEST_TENSOR:
                out[model][name] = delta
                continue
            sources = [
                np.zeros(delta.size, np.float32),
                *(layer.estimate[name].ravel() for layer in coarse),
                delta.ravel(),
            ]
            flat = np.empty(delta.size, np.float32)
            for block, start in enumerate(range(0, delta.size, BLOCK_WEIGHTS)):
                span = slice(start, start + BLOCK_WEIGHTS)
                flat[span] = sources[depths.get((model, name, block), 0)][span]
            out[model][name] = flat.reshape(delta.shape)
    return out
