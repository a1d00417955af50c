"""One of five experts changes: what the next exact merge reads, with room for sums and without.

    python benchmarks/changed_expert.py [--rows 4096]

For linear and task_arithmetic, and each place in the recipe at which an expert can change: bytes of
experts and of kept sums, seconds, as shares of the merge that reads everything; the ids must be
the same. What is kept, and why the place matters: docs/design/partial-sums.md.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from mergepipe.api import Repository
from mergepipe.sizes import format_size

COUNT = 5
COLUMNS = 1024
TENSORS = 4


def write(folder: Path, seed: int, rows: int) -> Path:
    """Number `seed` of a family in bfloat16; 0: the base."""
    folder.mkdir(parents=True, exist_ok=True)
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    tensors = {}
    for number in range(TENSORS):
        values = torch.randn(rows, COLUMNS, generator=base) * 0.02
        if seed:
            values += torch.randn(rows, COLUMNS, generator=own) * 0.0005
        tensors[f"layer.{number}.weight"] = values.bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def main() -> None:
    """Print a line for each method and place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="changed-expert-") as name:
        folder = Path(name)
        repository = Repository.init(folder / "repository")
        repository.commit(write(folder / "model", 0, rows), branch="base")
        for seed in range(1, 2 * COUNT + 1):
            branch = f"e{seed}" if seed <= COUNT else f"new{seed - COUNT}"
            repository.commit(write(folder / "model", seed, rows), branch=branch, base="base")
        repository.configure("merge.cache", "100GiB")
        repository.close()
        print(f"{COUNT} experts of {format_size(2 * TENSORS * rows * COLUMNS)}")
        for method, weight in (("linear", 1.0), ("task_arithmetic", 0.2)):
            for changed in range(1, COUNT + 1):
                # What an earlier line remembers does not count.
                copy = shutil.copytree(folder / "repository", folder / "copy")
                with Repository.open(copy) as fresh:
                    print(f"{method:16} place {changed}: {_line(fresh, method, weight, changed)}")
                shutil.rmtree(copy)


def _line(repository: Repository, method: str, weight: float, changed: int) -> str:
    experts = [f"e{number}" for number in range(1, COUNT + 1)]
    first = repository.plan(base="base", experts=experts, method=method, weight=weight)
    plain = repository.merge(first, branch="plain", reuse=False)
    keeping = repository.merge(first, branch="before")
    kept = sum(file.stat().st_size for file in (repository.directory / "cache").rglob("*/*/*"))
    experts[changed - 1] = f"new{changed}"
    plan = repository.plan(base="base", experts=experts, method=method, weight=weight)
    made = repository.merge(plan, branch="after")
    without = repository.merge(plan, branch="without", reuse=False)
    assert made.snapshot == without.snapshot
    return (
        f"{made.expert_bytes_read / without.expert_bytes_read:.0%} of the expert bytes and "
        f"{format_size(made.costs.cache_bytes)} of sums, in {made.seconds / without.seconds:.0%} "
        f"of the time; {format_size(kept)} kept, for {keeping.seconds / plain.seconds:.0%} of it"
    )


if __name__ == "__main__":
    main()
