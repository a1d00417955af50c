"""Coarse layer designs on real fine-tunes: bytes, energy, held-out gain, fidelity, and budgets.

python benchmarks/coarse_layer.py [DATA] [--windows N] [--jobs N] [--out DIR] [--only TEXT]

DATA: a directory of `base`, `expert-*` and other fine-tunes of it, and `val_tokens.safetensors`.
Writes coarse-layer-table.md and coarse-layer.svg under --out, and prints the tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from coarse_budget import Policy, plan, planned, steps
from coarse_designs import Design, build
from tiny_models import Family, Judge, Score, Weights, Yardstick

SINGLES = ("expert-python", "expert-c", "gentle-python")
BLOCK = 1 << 15


def whole(label: str, q: float, scale: str = "mean", **more: object) -> Design:
    """A design with one threshold and one float32 magnitude per tensor."""
    values: dict[str, Any] = {"scope": "tensor", "magnitude_bytes": 4.0, "rounded": False}
    values |= {"scale": scale, **more}
    return Design(label, q, **values)


DESIGNS = (
    whole("tensor, mean, q 0.35", 0.35),
    whole("tensor, mean, q 0.15", 0.15),
    whole("tensor, norm, q 0.35", 0.35, "norm"),
    whole("tensor, unbiased, q 0.15", 0.15, "unbiased"),
    whole("tensor, unbiased, q 0.35", 0.35, "unbiased"),
    whole("64 KiB, unbiased, q 0.35", 0.35, "unbiased", scope=BLOCK),
    whole("signs of all, norm", 1.0, "norm"),
    whole("model threshold, unbiased, q 0.35", 0.35, "unbiased", one_threshold=True,
          magnitude_scope="tensor"),
    whole("tensor, by base exponent, q 0.35", 0.35, by_exponent=True, magnitude_bytes=16.0),
    whole("tensor, two classes .35/.15, unbiased", 0.35, "unbiased", classes=(0.15,)),
    Design("tensor, row magnitude, q 0.35", 0.35, "tensor", "row"),
    Design("row, mean, q 0.35", 0.35, scale="mean"),
    Design("row, unbiased, q 0.1", 0.1),
    Design("row, unbiased, q 0.15", 0.15),
    Design("row, unbiased, q 0.2", 0.2),
    Design("row, unbiased, q 0.35", 0.35),
    Design("row, unbiased, q 0.5", 0.5),
    Design("row, unbiased, 1.17 of the mean", threshold_of_mean=1.17),
    Design("row, unbiased, two classes .3/.1", 0.3, classes=(0.1,)),
    Design("1024 weights, unbiased, q 0.35", 0.35, 1024),
    Design("64 weights, unbiased, q 0.35", 0.35, 64),
)  # fmt: skip

COARSE = Design("row, q 0.35", 0.35)
COARSER = Design("row, q 0.15", 0.15)
COARSEST = Design("row, q 0.1", 0.1)
FINER = Design("row, q 0.4", 0.4)
BLOCKWISE = whole("tensor, q 0.35, mean", 0.35)
PLOTTED = (
    "whole blocks, random",
    "whole blocks, by energy",
    "block coarse, mean, by energy",
    "row 0.35, by energy",
    "row 0.35, random",
    "row 0.15, by norm",
    "row 0.1 + 0.35, by energy",
    "row 0.1 + 0.35, by norm",
)
BUDGETS = (0.025, 0.05, 0.075, 0.1, 0.25)
POLICIES: tuple[tuple[str, tuple[Design, ...], Policy], ...] = (
    ("whole blocks, random", (), "random"),
    ("whole blocks, by energy", (), "energy"),
    ("block coarse, mean, by energy", (BLOCKWISE,), "energy"),
    ("row 0.35, random", (COARSE,), "random"),
    ("row 0.35, by energy", (COARSE,), "energy"),
    ("row 0.35, by norm", (COARSE,), "norm"),
    ("row 0.35, even", (COARSE,), "even"),
    ("row 0.15, by norm", (COARSER,), "norm"),
    ("row 0.1 + 0.35, by energy", (COARSEST, COARSE), "energy"),
    ("row 0.1 + 0.35, by norm", (COARSEST, COARSE), "norm"),
    ("row 0.1 + 0.35, even", (COARSEST, COARSE), "even"),
    ("row 0.1 + 0.35, random", (COARSEST, COARSE), "random"),
    ("row 0.15 + 0.4, by norm", (COARSER, FINER), "norm"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One design, measured."""

    design: Design
    share: float  # mean of the experts
    gentle_share: float
    energy: float
    singles: tuple[Score, ...]
    arithmetic: Score
    ties: tuple[Score, Score]


@dataclass(frozen=True, slots=True)
class Bench:
    """The models and the yardsticks of one process."""

    family: Family
    singles: tuple[Yardstick, ...]
    arithmetic: Yardstick
    ties: tuple[Yardstick, Yardstick]


@cache
def bench(data: Path, windows: int, all_yardsticks: bool) -> Bench:
    family, judge = Family.read(data), Judge(data, windows)
    domains = list(judge.tokens)

    def against(exact: Weights, where: list[str]) -> Yardstick:
        return Yardstick(judge, exact, family.base, where)

    arithmetic = against(family.task_arithmetic(family.deltas), domains)
    if not all_yardsticks:
        return Bench(family, (), arithmetic, (arithmetic, arithmetic))
    return Bench(
        family,
        tuple(against(family.single(family.deltas[m]), [family.domain(m)]) for m in SINGLES),
        arithmetic,
        (
            against(family.ties(family.deltas, 0.5, None), domains),
            against(family.ties(family.deltas, 0.2, None), domains),
        ),
    )


def measure(job: tuple[Path, int, Design]) -> Row:
    data, windows, design = job
    b = bench(data, windows, True)
    layers = {model: build(b.family, model, design) for model in b.family.deltas}
    estimates = {model: layer.estimate for model, layer in layers.items()}
    # an election divides by those that agree: the mean magnitude is the right one there
    means = {model: layer.mean for model, layer in layers.items()}
    kept = {model: layer.kept for model, layer in layers.items()}
    energies = [
        sum(float(c.sum()) for c in layers[m].captured.values())
        / sum(float((d.astype(np.float64) ** 2).sum()) for d in b.family.deltas[m].values())
        for m in b.family.experts
    ]
    row = Row(
        design,
        float(np.mean([layers[m].share for m in b.family.experts])),
        layers["gentle-python"].share,
        float(np.mean(energies)),
        tuple(
            y.score(b.family.single(estimates[m])) for m, y in zip(SINGLES, b.singles, strict=True)
        ),
        b.arithmetic.score(b.family.task_arithmetic(estimates)),
        (
            b.ties[0].score(b.family.ties(means, 0.5, kept)),
            b.ties[1].score(b.family.ties(means, 0.2, kept)),
        ),
    )
    print(design_line(row), flush=True)
    return row


@dataclass(frozen=True, slots=True)
class Spent:
    """One plan under one budget: the share of the energy it captures, and how the merge does."""

    policy: str
    budget: float
    energy: float
    merge: Score
    full: float  # share of raw of a plan that reads everything exactly


def spend(job: tuple[Path, int, int]) -> list[Spent]:
    data, windows, index = job
    b = bench(data, windows, False)
    label, designs, policy = POLICIES[index]
    layers = {m: [build(b.family, m, d) for d in designs] for m in b.family.experts}
    every = list(steps(b.family, layers))
    raw = sum(2 * d.size for m in b.family.experts for d in b.family.deltas[m].values())
    total = sum(step.energy for step in every)
    full = sum(step.cost for step in every) / raw
    out = []
    for budget in BUDGETS:
        depths = plan(every, budget * raw, policy)
        captured = sum(
            s.energy for s in every if s.depth <= depths.get((s.model, s.tensor, s.block), 0)
        )
        merged = b.family.task_arithmetic(planned(b.family, layers, depths))
        out.append(Spent(label, budget, captured / total, b.arithmetic.score(merged), full))
        print(spent_line(out[-1]), flush=True)
    return out


DESIGN_HEAD = (
    "| design | of raw | gentle | energy | python | c | gentle | arithmetic | ties 0.5 | ties 0.2 |"
)
SPENT_HEAD = "| plan | budget | energy | gain | fidelity | all exact |"


def ruled(head: str) -> str:
    return head + "\n|---" + "|---" * (head.count("|") - 2) + "|"


def pair(score: Score) -> str:
    return f"{score.gain:.2f} / {score.fidelity:.3f}"


def design_line(row: Row) -> str:
    scores = (*row.singles, row.arithmetic, *row.ties)
    cells = (row.design.label, f"{row.share:.4f}", f"{row.gentle_share:.4f}", f"{row.energy:.3f}")
    return "| " + " | ".join((*cells, *map(pair, scores))) + " |"


def spent_line(s: Spent) -> str:
    return (
        f"| {s.policy} | {s.budget:.1%} | {s.energy:.3f} | {s.merge.gain:.2f} "
        f"| {s.merge.fidelity:.3f} | {s.full:.4f} |"
    )


def draw(rows: list[Row], spent: list[Spent], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "coarse"  # the same picture from the same numbers
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True)
    for name, prefix in (
        ("row, unbiased", "row, unbiased, q"),
        ("tensor, unbiased", "tensor, unbiased, q"),
        ("tensor, mean", "tensor, mean, q"),
        ("two classes, unbiased", "tensor, two classes"),
        ("signs of all, norm", "signs"),
    ):
        some = sorted((r for r in rows if r.design.label.startswith(prefix)), key=lambda r: r.share)
        left.plot(
            [100 * r.share for r in some], [r.arithmetic.fidelity for r in some], "o-", label=name
        )
    for label in PLOTTED:
        some_spent = [s for s in spent if s.policy == label]
        right.plot(
            [100 * s.budget for s in some_spent],
            [s.merge.fidelity for s in some_spent],
            "o-", markersize=3, label=label,
        )  # fmt: skip
    left.set(xlabel="coarse layer, % of raw bytes", ylabel="fidelity to the exact merge",
             title="designs", ylim=(-0.05, 1.02))  # fmt: skip
    right.set(xlabel="budget, % of raw bytes (log)", title="budgets", xscale="log")
    right.set_xticks([2.5, 5, 10, 25], ["2.5", "5", "10", "25"])
    right.minorticks_off()
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    data = here.parents[1] / "shared/data/tiny-llama"
    parser.add_argument("data", type=Path, nargs="?", default=data)
    parser.add_argument("--windows", type=int, default=0, help="a domain; 0: all of them")
    parser.add_argument("--budget-windows", type=int, default=52)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="where to write table and plot")
    parser.add_argument("--only", default="", help="designs and policies whose label has this")
    args = parser.parse_args()
    designs = [(args.data, args.windows, d) for d in DESIGNS if args.only in d.label]
    policies = [
        (args.data, args.budget_windows, i) for i, p in enumerate(POLICIES) if args.only in p[0]
    ]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        rows = pool.map(measure, designs, chunksize=1)
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        spent = [s for part in pool.map(spend, policies, chunksize=1) for s in part]
    table = "\n".join([ruled(DESIGN_HEAD), *map(design_line, rows), "",
                       ruled(SPENT_HEAD), *map(spent_line, spent), ""])  # fmt: skip
    print("\n" + table)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "coarse-layer-table.md").write_text(table)
        draw(rows, spent, args.out / "coarse-layer.svg")


if __name__ == "__main__":
    main()
