"""Merge methods on one core: fused kernels beside eager torch, element-experts per second.

python benchmarks/methods.py [ELEMENTS]   bfloat16 in and out; the median of seven runs each

`exact` terms are full bfloat16 weights, `coarse` ones packed trits, `mixed` half of each. `torch`
is our own torch path, which gives the same bytes (checked); `eager` is what one would write in
torch without that aim, over ranges of 256 Ki elements.

A second table has every method and variant as it comes: its element pass, and the passes that
measure its statistics, each in element-experts per second of one core (four models, or as many as
the method takes; rows of 2048).
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median

import numpy as np
import torch
from msgspec.structs import replace

from mergepipe.dtypes import BF16
from mergepipe.methods import (
    METHODS,
    VARIANTS,
    Coarse,
    ExpertScalars,
    Full,
    Method,
    Scalars,
    Unit,
    find,
    merge,
)
from mergepipe.methods import statistics as stats
from mergepipe.methods.terms import SIGNS as SIGN_TABLE

RUNS = 7
SPREAD = 2e-4
COMPARED = ("linear", "task_arithmetic", "ties", "dare_ties")
ROW = 2048
TERMS = ("exact", "coarse", "mixed")


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def scalars(name: str, count: int) -> Scalars:
    own = ExpertScalars(weight=1.0 / count)
    if name == "ties":
        own = ExpertScalars(1.0 / count, threshold=SPREAD / 2)
    if name == "dare_ties":
        own = ExpertScalars(1.0 / count, density=0.3, rescale=1 / 0.3)
    elect = name.endswith("ties")
    return Scalars((own,) * count, elect=elect, normalize=elect or name == "linear")


SIGNS = torch.from_numpy(SIGN_TABLE.copy()).float()


def delta(term: Full | Coarse, base: torch.Tensor, lo: int, hi: int) -> torch.Tensor:
    if isinstance(term, Coarse):
        packed = torch.from_numpy(term.trits[lo // 5 : -(-hi // 5)])
        return SIGNS[packed.int()].reshape(-1)[lo % 5 :][: hi - lo] * term.magnitude
    return torch.from_numpy(term.data[lo:hi]).view(torch.bfloat16).float() - base


def eager(name: str, unit: Unit) -> torch.Tensor:
    """The method as one would write it: a range's deltas in float32, then one operation a time."""
    out = torch.empty(unit.length, dtype=torch.bfloat16)
    whole = torch.from_numpy(unit.base.data).view(torch.bfloat16)
    for lo in range(0, unit.length, 1 << 18):
        hi = min(unit.length, lo + (1 << 18))
        base = whole[lo:hi].float()
        weight, ds = unit.scalars.experts[0].weight, []
        for term, own in zip(unit.terms, unit.scalars.experts, strict=True):
            d = delta(term, base, lo, hi)
            if name == "linear":
                d += base
            if name == "ties" and isinstance(term, Full):
                d *= d.abs() >= own.threshold
            if name == "dare_ties":
                d *= torch.bernoulli(torch.full_like(d, own.density)) / own.density
            ds.append(d.mul_(weight))
        if name.endswith("ties"):
            sign = (sum(ds) >= 0).float() * 2 - 1
            agree = [(d.sign() == sign).float() for d in ds]
            divisor = sum(agree) * weight
            divisor[divisor < 1e-8] = 1
            merged = base + sum(d * a for d, a in zip(ds, agree, strict=True)) / divisor
        else:
            merged = sum(ds) if name == "linear" else base + sum(ds)
        out[lo:hi] = merged.bfloat16()
    return out


def seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return median(taken)


def of_every_method(elements: int, base: Full, models: list[Full]) -> None:
    """The second table."""
    elements -= elements % ROW
    print("\n| method | K | element pass M/s | statistics M/s | passes |\n|---|---|---|---|---|")
    for name, method in {**METHODS, **VARIANTS}.items():
        count = min(4, method.maximum_models or 4)
        settings = method.settings(_parameters(method), [{}] * count)
        whole = Unit(0, len(base.data), base, tuple(models[:count]), Scalars.plain(count), BF16)
        unit = replace(whole.part(0, elements), row_length=ROW, slab_length=ROW)
        values, taken = {}, 0.0
        for need in method.needs(settings):
            taken += seconds(partial(stats.measure, need, [unit]))
            values[need] = stats.measure(need, [unit])
        unit = replace(unit, scalars=method.resolve(settings, values))
        speed = elements * count / seconds(partial(merge, method, unit)) / 1e6
        measured = f"{elements * count / taken / 1e6:.0f}" if taken else "-"
        passes = stats.passes(method.needs(settings), exact_counts=False) - 1
        print(f"| {name} | {count} | {speed:.0f} | {measured} | {passes} |", flush=True)


def _parameters(method: Method) -> dict[str, object]:
    """What gives it the most to do."""
    own = {parameter.name for parameter in method.parameters}
    given = {"t": 0.3, "density": 0.5, "select_topk": 0.5, "rescale_norm": "l1"}
    return {name: value for name, value in given.items() if name in own}


def main(elements: int) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    base = rng.standard_normal(elements).astype(np.float32) * 0.02
    full = [
        Full(bfloat16(base + rng.standard_normal(elements).astype(np.float32) * SPREAD), BF16)
        for _ in range(20)
    ]
    coarse = [
        Coarse(rng.integers(0, 243, elements // 5 + 1).astype(np.uint8), SPREAD) for _ in range(20)
    ]
    print("| method | terms | K | fused M/s | eager M/s | ratio | torch M/s |")
    print("|---|---|---|---|---|---|---|")
    for name, label, count in product(COMPARED, TERMS, (2, 8, 20)):
        terms = {
            "exact": full[:count],
            "coarse": coarse[:count],
            "mixed": full[: count // 2] + coarse[: count - count // 2],
        }[label]
        method, own_base = find(name), Full(bfloat16(base), BF16)
        unit = Unit(0, elements, own_base, tuple(terms), scalars(name, count), BF16)
        works: list[Callable[[], object]] = [
            partial(merge, method, unit, backend="fused"),
            partial(eager, name, unit),
            partial(merge, method, unit, backend="torch"),
        ]
        assert bytes(works[0]()) == bytes(works[2]())
        fused, plain, same = (elements * count / seconds(work) / 1e6 for work in works)
        row = f"{fused:.0f} | {plain:.0f} | {fused / plain:.1f} | {same:.0f}"
        print(f"| {name} | {label} | {count} | {row} |", flush=True)
    of_every_method(elements, Full(bfloat16(base), BF16), full)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 19)
