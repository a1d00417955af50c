"""Two versions of mergepipe, in turn: processor time of whole processes, new over old.

python benchmarks/two_versions.py OLD_MP NEW_MP [MEGABYTES] [ROUNDS]

OLD_MP, NEW_MP  the `mp` programs of two checkouts, such as a worktree's .venv/bin/mp
Makes a base of so many megabytes (48) and three fine-tunes, and runs each command so often (5).
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
from safetensors.numpy import save_file

EXPERTS = ("a", "b", "c")


def write_family(where: Path, megabytes: int) -> None:
    """A base in float16, and fine-tunes that change every weight a little."""
    source = np.random.default_rng(0)
    shape = (megabytes * 64, 1024)
    base = {
        f"layer{place}.weight": (source.standard_normal(shape) * 0.02).astype(np.float16)
        for place in range(8)
    }
    models = {"base": base}
    for name in EXPERTS:
        models[name] = {
            key: values + (source.standard_normal(shape) * 0.0005).astype(np.float16)
            for key, values in base.items()
        }
    for name, tensors in models.items():
        (where / name).mkdir(parents=True)
        save_file(tensors, where / name / "model.safetensors")


def run(*command: str | Path, cwd: Path | None = None) -> tuple[float, float]:
    """Processor seconds and seconds that a command took."""
    # Installed code is compiled: the time that Python takes for source is not measured.
    compiled = {k: value for k, value in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=cwd, env=compiled, check=True, capture_output=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, seconds


def one_round(program: Path, where: Path) -> dict[str, tuple[float, float]]:
    """Every command once, in a new repository."""
    repository, out = where / "repository", where / "out"
    for folder in (repository, out):
        shutil.rmtree(folder, ignore_errors=True)
    run(program, "init", repository)
    took = {}

    def timed(name: str, *arguments: str | Path) -> None:
        took[name] = run(program, *arguments, cwd=repository)

    timed("commit a base", "commit", where / "base", "-b", "base")
    timed("commit a fine-tune", "commit", where / "a", "-b", "a", "--base", "base")
    for name in EXPERTS[1:]:
        run(program, "commit", where / name, "-b", name, "--base", "base", cwd=repository)
    timed("checkout", "checkout", "a", "--to", out)
    timed("merge by ties", "merge", *EXPERTS, "-b", "exact")
    timed("merge at raw:10%", "merge", *EXPERTS, "-b", "frugal", "--budget", "raw:10%")
    timed("log", "log", "exact")
    return took


def main(old: Path, new: Path, megabytes: int, rounds: int) -> None:
    """Run both in turn, each first as often as the other, and print ratios."""
    taken: dict[tuple[str, Path], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        write_family(Path(directory), megabytes)
        for program in (old, new):
            run(program, "doctor", "--compile")
        for number in range(rounds):
            for program in (old, new) if number % 2 else (new, old):
                for name, figures in one_round(program, Path(directory)).items():
                    taken[name, program].append(figures)
    print(f"{'':20}{'processor':>10}{'(least to most)':>18}{'wall':>8}")
    for name in dict.fromkeys(name for name, _ in taken):
        pairs = list(zip(taken[name, old], taken[name, new], strict=True))
        processor = [after[0] / before[0] for before, after in pairs]
        wall = [after[1] / before[1] for before, after in pairs]
        spread = f"({min(processor):.2f} to {max(processor):.2f})"
        print(f"{name:20}{median(processor):>10.2f}{spread:>18}{median(wall):>8.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print("two versions: give the `mp` of each, OLD_MP NEW_MP; nothing was measured")
    else:
        main(
            Path(sys.argv[1]).absolute(),
            Path(sys.argv[2]).absolute(),
            int(sys.argv[3]) if len(sys.argv) > 3 else 48,
            int(sys.argv[4]) if len(sys.argv) > 4 else 5,
        )
