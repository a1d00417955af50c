"""Tomorrow's version of an expert, committed as everyone does: what it takes, and what it is worth.

    python benchmarks/daily_commits.py --family DIR [--runs 3]

DIR holds `base` and directories of experts. One of them gets a version that went on training by
some share of its changes, and is committed plainly (no --base), on a branch of its own with --base,
and with yesterday's version for a base, which stores least and leaves a budget nothing to read
coarsely. Prints the bytes stored, the energy that raw:10% of all then keeps, and the seconds
of the commit: the median of the runs, each of which draws other changes, and how far they lie apart
(docs/design/storing-fine-tunes.md).
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file

from mergepipe.api import Repository

SHARES = (0.02, 0.1, 0.4, 1.0)
WAYS = ("plainly", "base", "yesterday")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Day:
    """One commit; stored in bytes."""

    stored: int
    energy: float
    seconds: float


def went_on(base: Path, expert: Path, out: Path, share: float, seed: int = 1) -> Path:
    """A version that moved by `share` of the expert's mean change, in all weights."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(expert, out)
    [file] = out.glob("*.safetensors")
    start = load_file(next(base.glob("*.safetensors")))
    noise = torch.Generator().manual_seed(seed)
    made = {}
    for name, values in load_file(file).items():
        size = (values.float() - start[name].float()).abs().mean() * share
        moved = values.float() + size * torch.randn(values.shape, generator=noise)
        made[name] = moved.to(values.dtype).contiguous()
    save_file(made, file, {"format": "pt"})
    return out


def committed(place: Path, base: Path, experts: list[Path], new: Path, way: str) -> Day:
    """The new version in a repository of its own."""
    with Repository.init(place) as repository:
        repository.commit(base, branch="base")
        for expert in experts:
            repository.commit(expert, branch=expert.name, base="base")
        names = [expert.name for expert in experts]
        branch, named = names[0], None
        if way == "base":
            branch, named = "apart", "base"
        elif way == "yesterday":
            named = names[0]
        began = time.perf_counter()
        made = repository.commit(new, branch=branch, base=named)
        seconds = time.perf_counter() - began
        plan = repository.plan(
            base="base",
            experts=[branch, *names[1:]],
            method="task_arithmetic",
            weight=0.25,
            budget="raw:10%",
        )
        kept = plan.costs.energy_kept
        assert kept is not None
        return Day(made.stored_bytes, kept, seconds)


def main() -> None:
    """A line for each share and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    base = options.family / "base"
    experts = sorted(options.family.glob("expert-*"))
    for share in SHARES:
        days: dict[str, list[Day]] = {way: [] for way in WAYS}
        for seed in range(options.runs):
            with tempfile.TemporaryDirectory(prefix="daily-commits-") as folder:
                new = went_on(base, experts[0], Path(folder) / "new", share, seed)
                for way in WAYS:
                    days[way].append(committed(Path(folder) / way, base, experts, new, way))
        least = min(median(day.stored for day in days[way]) for way in WAYS[1:])
        for way in WAYS:
            stored = [day.stored for day in days[way]]
            energy = [day.energy for day in days[way]]
            print(
                f"went on by {share:4.0%}, committed {way:9}: "
                f"{median(stored) / MIB:.2f} MiB stored "
                f"(spread {(max(stored) - min(stored)) / MIB:.3f}, "
                f"{median(stored) / least:.2f} of the better choice), "
                f"{median(energy):.1%} of the energy kept "
                f"(spread {max(energy) - min(energy):.2%}), "
                f"{median(day.seconds for day in days[way]):.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
