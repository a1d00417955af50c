"""What a budget keeps of a merge: losses of real merges, read exactly, coarsely or not at all.

python benchmarks/merge_quality.py [DATA] [--windows N] [--threads N] [--block-size S] [--out DIR]

DATA: `base`, `expert-*`, other fine-tunes, `val_tokens.safetensors`. Every merge runs through a
repository, is checked out and loaded with transformers. Beside the planner's choice stand plans of
whole blocks (exactly or not at all) at the same bytes, at random and by energy per byte.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs
from tiny_models import Judge, Weights

from mergepipe import Repository
from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import Plan, PlanProfile
from mergepipe.objects.store import Tensors
from mergepipe.planner.build import PlannedMerge, read_drafts
from mergepipe.planner.drafts import Draft
from mergepipe.planner.roots import read_roots
from mergepipe.sizes import parse_size

METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("task_arithmetic", {"weight": 0.25}),
    ("ties", {"weight": 1.0, "density": 0.5}),
    ("ties", {"weight": 1.0, "density": 0.2}),
    ("dare_ties", {"weight": 1.0, "density": 0.5}),
    ("linear", {"weight": 1.0}),
    ("sce", {}),
    ("model_stock", {}),
)
BUDGETS = ("50%", "25%", "raw:10%", "raw:5%")
WHOLE_BUDGETS = ("25%", "raw:10%", "raw:5%")
CHOICES = ("planned", "whole, energy", "whole, random")


@dataclass(frozen=True, slots=True)
class Measured:
    """One merge. losses: per domain, nats. fidelity: 1 - KL(exact || it) / KL(exact || base)."""

    label: str
    choice: str
    budget: str
    of_raw: float
    losses: dict[str, float]
    gain: float
    kept: float
    fidelity: float


class Scores:
    """Losses of weights over all domains, beside the base's and an exact merge's."""

    def __init__(self, judge: Judge, base: Weights) -> None:
        self._judge = judge
        self._domains = sorted(judge.tokens)
        self._base = base
        self.base_losses = self.losses(base)
        self._exact: dict[str, Any] = {}
        self._exact_gain = self._base_divergence = 1.0

    def losses(self, weights: Weights) -> dict[str, float]:
        return {domain: self._judge.run(weights, [domain])[0] for domain in self._domains}

    def gain(self, losses: dict[str, float]) -> float:
        return sum(self.base_losses.values()) - sum(losses.values())

    def hold(self, weights: Weights) -> tuple[dict[str, float], float]:
        """Make these weights the exact ones that others are compared with."""
        losses, self._exact = {}, {}
        for domain in self._domains:
            losses[domain], _, self._exact[domain] = self._judge.run(weights, [domain])
        self._base_divergence = self._divergence(self._base)
        self._exact_gain = self.gain(losses)
        return losses, self._exact_gain

    def compare(self, weights: Weights) -> tuple[dict[str, float], float, float]:
        """Losses, gain over the base as a share of the exact merge's, fidelity."""
        losses, divergences = {}, []
        for domain in self._domains:
            found = self._judge.run(weights, [domain], self._exact[domain])
            losses[domain] = found[0]
            divergences.append(found[1])
        fidelity = 1 - float(np.mean(divergences)) / self._base_divergence
        return losses, self.gain(losses) / self._exact_gain, fidelity

    def _divergence(self, weights: Weights) -> float:
        runs = [self._judge.run(weights, [d], self._exact[d])[1] for d in self._domains]
        return float(np.mean(runs))


class Merges:
    """Merges in a temporary repository."""

    def __init__(self, repository: Repository, scratch: Path) -> None:
        self._repository = repository
        self._scratch = scratch
        self._count = 0

    def plan(self, experts: Sequence[str], method: str, budget: str | None, own: Any) -> Any:
        return self._repository.plan(
            base="base", experts=experts, method=method, budget=budget, **own
        )

    def weights(self, plan: PlannedMerge | Plan) -> Weights:
        """Of the merge, checked out and loaded."""
        self._count += 1
        branch = f"merge-{self._count}"
        self._repository.merge(plan, branch=branch)
        return self.loaded(branch)

    def loaded(self, revision: str) -> Weights:
        """Weights of a revision, checked out and loaded as any user of transformers would."""
        import torch
        from transformers import LlamaForCausalLM

        net: Any = LlamaForCausalLM
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            self._repository.checkout(revision, to=Path(directory) / "model")
            model = net.from_pretrained(Path(directory) / "model", dtype=torch.float32)
            return {name: value.numpy().copy() for name, value in model.state_dict().items()}

    def whole_blocks(self, exact: PlannedMerge, limit: int, order: str, seed: int = 0) -> Plan:
        """A plan of blocks read exactly or not at all, within the bytes of another one."""
        catalog = self._repository.catalog
        merge = exact.merge
        assert merge.base is not None
        under = merge.models[merge.base].snapshot
        profiles = {
            (row, merge.base): catalog.profile(one.snapshot, under)
            for row, one in enumerate(merge.models)
            if row != merge.base
        }
        tensors = Tensors(catalog.objects)
        drafts = read_drafts(merge, tensors, catalog.objects, profiles)
        computed = list(read_roots(drafts, tensors, catalog.encodings).values())
        costs = np.concatenate([root.costs.exact.ravel() for root in computed])
        equal = np.concatenate([root.costs.equal.ravel() for root in computed])
        energies = np.concatenate(
            [_energies(draft).ravel() for draft in drafts if isinstance(draft, Draft)]
        )
        places = np.flatnonzero(~equal)
        if order == "random":
            places = np.random.default_rng(seed).permutation(places)
        else:
            places = places[np.argsort(-(energies / np.maximum(costs, 1))[places], kind="stable")]
        chosen = np.full(len(costs), Depth.OMITTED, np.uint8)
        for place in places:
            if costs[place] <= limit:
                chosen[place] = Depth.EXACT
                limit -= int(costs[place])
        chosen[equal] = Depth.EQUAL
        lines, at = [], 0
        for line, draft in zip(exact.plan.lines, drafts, strict=True):
            if isinstance(draft, Draft):
                own = chosen[at : at + draft.equal.size].reshape(draft.equal.shape)
                at += own.size
                line = draft.plan(own, draft.scalars(draft.supposed_values(), own))
            lines.append(line)
        cited = tuple(
            PlanProfile(*pair, found[0]) for pair, found in profiles.items() if found is not None
        )
        return structs.replace(exact.plan, profiles=cited, lines=tuple(lines))


def _energies(draft: Draft) -> Any:
    rows = []
    for view, own in zip(draft.views, draft.supposed_scalars().experts, strict=True):
        assert view is not None
        rows.append(own.weight**2 * view.energies)
    return np.array(rows)


def label_of(method: str, own: dict[str, Any]) -> str:
    density = f" {own['density']}" if "density" in own else ""
    return method + density


def measure(
    merges: Merges,
    scores: Scores,
    experts: Sequence[str],
    methods: Sequence[tuple[str, dict[str, Any]]],
    whole: bool,
    say: Callable[[Measured], None],
) -> Iterator[Measured]:
    for method, own in methods:
        label = label_of(method, own)

        def made(
            choice: str, budget: str, share: float, weights: Weights, label: str = label
        ) -> Measured:
            losses, kept, fidelity = scores.compare(weights)
            gain = scores.gain(losses)
            one = Measured(label, choice, budget, share, losses, gain, kept, fidelity)
            say(one)
            return one

        exact = merges.plan(experts, method, None, own)
        raw = exact.costs.expert_bytes_raw
        losses, gain = scores.hold(merges.weights(exact))
        first = Measured(
            label, "exact", "none", exact.costs.expert_bytes_full / raw, losses, gain, 1.0, 1.0
        )
        say(first)
        yield first
        for budget in BUDGETS:
            planned = merges.plan(experts, method, budget, own)
            spent = planned.costs.expert_bytes_planned
            yield made("planned", budget, spent / raw, merges.weights(planned))
            if not whole or budget not in WHOLE_BUDGETS:
                continue
            for order in ("energy", "random"):
                plan = merges.whole_blocks(exact, spent, order)
                yield made(f"whole, {order}", budget, spent / raw, merges.weights(plan))


def losses_table(rows: Sequence[tuple[str, dict[str, float]]], base: dict[str, float]) -> str:
    """Held-out loss of models, a domain a column."""
    domains = sorted(base)
    lines = ["| model | " + " | ".join(domains) + " | sum | gain |"]
    lines.append("|---" * (len(domains) + 3) + "|")
    for name, losses in rows:
        cells = [f"{losses[domain]:.3f}" for domain in domains]
        total = sum(losses.values())
        cells += [f"{total:.3f}", f"{sum(base.values()) - total:+.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def kept_table(found: Sequence[Measured]) -> str:
    """Share of the exact merge's gain, and fidelity, by method and budget."""
    lines = ["| method, blocks | exact | " + " | ".join(BUDGETS) + " |"]
    lines.append("|---" * (len(BUDGETS) + 2) + "|")
    for label in dict.fromkeys(one.label for one in found):
        for choice in CHOICES:
            own = {o.budget: o for o in found if o.label == label and o.choice == choice}
            if not own:
                continue
            exact = next(o for o in found if o.label == label and o.choice == "exact")
            cells = [f"{exact.gain:+.3f} nats at {exact.of_raw:.1%} of raw"]
            cells += [
                f"{own[b].kept:.2f} / {own[b].fidelity:.3f}" if b in own else "" for b in BUDGETS
            ]
            lines.append(f"| {label}, {choice} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: Sequence[Measured], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "quality"  # the same picture from the same numbers
    mpl.rcParams["svg.fonttype"] = "none"
    figure, axis = plt.subplots(figsize=(7, 4))
    colours = plt.get_cmap("tab10")
    for number, label in enumerate(dict.fromkeys(one.label for one in found)):
        for choice, style in zip(CHOICES, ("o-", "s--", "x:"), strict=True):
            some = [o for o in found if o.label == label and o.choice in (choice, "exact")]
            some = sorted(some, key=lambda one: one.of_raw)
            if len(some) > 1:
                axis.plot(
                    [100 * one.of_raw for one in some], [one.kept for one in some], style,
                    color=colours(number), markersize=4, linewidth=1,
                    label=label if choice == "planned" else None,
                )  # fmt: skip
    axis.plot([], [], "s--", color="grey", label="whole blocks, by energy")
    axis.plot([], [], "x:", color="grey", label="whole blocks, at random")
    axis.axhline(0.95, color="grey", linewidth=0.5)
    axis.set(xlabel="expert bytes read, % of raw (log)", ylabel="share of the exact merge's gain",
             xscale="log", ylim=(-0.3, 1.4))  # fmt: skip
    axis.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def say(one: Measured) -> None:
    print(
        f"{one.label:16} {one.choice:14} {one.budget:8} {one.of_raw:7.2%} of raw"
        f"  gain {one.gain:+.4f}  kept {one.kept:6.3f}  fidelity {one.fidelity:6.3f}",
        flush=True,
    )


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    data = here.parents[1] / "shared/data/tiny-llama"
    parser.add_argument("data", type=Path, nargs="?", default=data)
    parser.add_argument("--windows", type=int, default=0, help="a domain; 0: all of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--block-size", default="1MiB")
    parser.add_argument("--only", default="", help="methods whose label has this")
    parser.add_argument("--experts", default="", help="comma separated; default: all expert-*")
    parser.add_argument("--no-whole", action="store_true", help="leave out whole-block plans")
    parser.add_argument("--out", type=Path, default=None, help="where to write table and plot")
    args = parser.parse_args()
    judge = Judge(args.data, args.windows)
    import torch

    torch.set_num_threads(args.threads)
    names = sorted(p.name for p in args.data.iterdir() if (p / "config.json").exists())
    experts = args.experts.split(",") if args.experts else [n for n in names if "expert-" in n]
    methods = [(method, own) for method, own in METHODS if args.only in label_of(method, own)]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        size = parse_size(args.block_size)
        with Repository.init(place / "repository", block_size=size) as repository:
            for name in ("base", *(n for n in names if n != "base")):
                base = None if name == "base" else "base"
                repository.commit(args.data / name, branch=name, base=base)
            merges = Merges(repository, place)
            scores = Scores(judge, merges.loaded("base"))
            rows = [("base", scores.base_losses)]
            for name in experts:
                rows.append((name, scores.losses(merges.loaded(name))))
                print(rows[-1][0], f"{scores.gain(rows[-1][1]):+.4f}", flush=True)
            found = list(measure(merges, scores, experts, methods, not args.no_whole, say))
    rows += [(f"{o.label}, {o.choice}", o.losses) for o in found if o.choice == "exact"]
    rows += [
        (f"{o.label}, {o.budget}", o.losses)
        for o in found
        if o.choice == "planned" and o.budget == "raw:10%"
    ]
    text = losses_table(rows, scores.base_losses) + "\n\n" + kept_table(found) + "\n"
    print("\n" + text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "merge-quality-table.md").write_text(text)
        draw(found, args.out / "merge-quality.svg")


if __name__ == "__main__":
    main()
