"""Merge methods on one core: fused kernels beside eager torch, element-experts per second.

python benchmarks/methods.py [ELEMENTS]   bfloat16 in and out; the median of seven runs each

Both give the same bytes (checked). `exact` terms are full bfloat16 weights, `coarse` ones packed
trits, `mixed` half of each. The torch column is the same arithmetic, one operation at a time.
"""

import statistics
import sys
import time

import numpy as np
import torch

from mergepipe.dtypes import BF16
from mergepipe.methods import Coarse, ExpertScalars, Full, Scalars, Unit, find, merge

RUNS = 7
SPREAD = 2e-4


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


def seconds(method: object, unit: Unit, backend: str) -> float:
    taken = []
    for _ in range(RUNS):
        begin = time.process_time()
        merge(method, unit, backend=backend)
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


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
    print("| method | terms | K | fused M/s | torch M/s | ratio |\n|---|---|---|---|---|---|")
    for name in ("linear", "task_arithmetic", "ties", "dare_ties"):
        for label in ("exact", "coarse", "mixed"):
            for count in (2, 8, 20):
                terms = {
                    "exact": full[:count],
                    "coarse": coarse[:count],
                    "mixed": full[: count // 2] + coarse[: count - count // 2],
                }[label]
                method = find(name)
                own_base = Full(bfloat16(base), BF16)
                unit = Unit(0, elements, own_base, tuple(terms), scalars(name, count), BF16)
                results = [merge(method, unit, backend=b).tobytes() for b in ("fused", "torch")]
                assert results[0] == results[1]
                fused, eager = (
                    elements * count / seconds(method, unit, b) / 1e6 for b in ("fused", "torch")
                )
                row = f"{fused:.0f} | {eager:.0f} | {fused / eager:.1f}"
                print(f"| {name} | {label} | {count} | {row} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 19)
